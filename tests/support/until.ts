import { setTimeout as sleep } from 'node:timers/promises'

export interface Watchdog {
  readonly timeoutMs: number
  /** What is waited for, as the end of "waited 5000 ms for …". */
  readonly what: string
}

const LOOK_MS = 10

/** Waits for a condition, never for a time. Gives what the condition gave when it was neither false nor undefined. */
export async function until<Value>(
  condition: () => Value | false | undefined | Promise<Value | false | undefined>,
  { timeoutMs, what }: Watchdog,
): Promise<Value> {
  const deadlineMs = performance.now() + timeoutMs
  for (;;) {
    const value = await condition()
    if (value !== false && value !== undefined) return value
    if (performance.now() >= deadlineMs) throw new Error(`waited ${timeoutMs} ms for ${what}`)
    await sleep(LOOK_MS)
  }
}

/** A promise under a watchdog. */
export async function within<Value>(promise: Promise<Value>, { timeoutMs, what }: Watchdog): Promise<Value> {
  const watch = new AbortController()
  const bark = sleep(timeoutMs, undefined, { signal: watch.signal }).then(
    () => Promise.reject(new Error(`waited ${timeoutMs} ms for ${what}`)),
    () => new Promise<never>(() => {}),
  )
  try {
    return await Promise.race([promise, bark])
  } finally {
    watch.abort()
  }
}
