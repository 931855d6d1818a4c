/** A schedule as text: who did a step, in order. `client1*3 broker client1:dies client2:times-out` can be printed and replayed. */

export const move = { step: 0, timesOut: 1, dies: 2, stops: 3 } as const
const SUFFIXES = ['', ':times-out', ':dies', ':stops'] as const

export interface Move {
  readonly actor: number
  readonly kind: number
}

export function formatSchedule(moves: readonly Move[], names: readonly string[]): string {
  const words: string[] = []
  let count = 0
  moves.forEach((one, at) => {
    count++
    const next = moves[at + 1]
    if (next && next.actor === one.actor && next.kind === one.kind) return
    words.push(`${names[one.actor]}${SUFFIXES[one.kind]}${count > 1 ? `*${count}` : ''}`)
    count = 0
  })
  return words.join(' ')
}

export function parseSchedule(text: string, names: readonly string[]): Move[] {
  return text
    .split(' ')
    .filter((word) => word !== '')
    .flatMap((word) => {
      const [, name, suffix, times] = /^([^:*]+)(:[^*]+)?(?:\*(\d+))?$/.exec(word) ?? []
      const actor = names.indexOf(name ?? '')
      const kind = SUFFIXES.indexOf((suffix ?? '') as (typeof SUFFIXES)[number])
      if (actor < 0 || kind < 0) throw new Error(`a schedule cannot say '${word}'`)
      return Array.from({ length: Number(times ?? 1) }, () => ({ actor, kind }))
    })
}

/** Drops whatever the failure does not need, largest runs first; `fails` replays a candidate. */
export function shorten(moves: readonly Move[], fails: (candidate: readonly Move[]) => boolean): Move[] {
  let kept = [...moves]
  for (let size = kept.length >> 1; size >= 1; size >>= 1) {
    for (let start = kept.length - size; start >= 0; start -= size) {
      const candidate = [...kept.slice(0, start), ...kept.slice(start + size)]
      if (fails(candidate)) kept = candidate
    }
  }
  return kept
}
