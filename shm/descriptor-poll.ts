/**
 * A descriptor in the event loop: the only place that uses the library's poll handle, because it has two traps.
 *
 * - A handle that nothing references is collected and falls silent: handles that are started are kept here.
 * - An exception that leaves its callback stays pending in the library and ends the process at some later collection
 *   with a fatal error of the engine: it is caught here and thrown again from the event loop, as an ordinary uncaught
 *   exception.
 *
 * Level-triggered: the callback comes again in every turn while the descriptor is ready. The descriptor is the
 * caller's, who closes the handle first.
 */
import koffi, { type node } from 'koffi'

export interface PollEvents {
  readable?: boolean
  writable?: boolean
}

const started = new Set<DescriptorPoll>()

export class DescriptorPoll {
  readonly #fd: number
  readonly #callback: () => void
  #handle: node.PollHandle | undefined
  #closed = false
  #referenced = true

  /** Asleep until `start`; an idle handle keeps no process alive. */
  constructor(fd: number, onReady: () => void) {
    this.#fd = fd
    this.#callback = () => {
      try {
        onReady()
      } catch (error) {
        process.nextTick(() => {
          throw error
        })
      }
    }
  }

  /**
   * Waits for these events from now on, instead of those asked for before. Keeps the process alive unless unreferenced.
   */
  start(events: PollEvents): void {
    if (this.#closed) return
    started.add(this)
    if (this.#handle !== undefined) {
      this.#handle.start(events, this.#callback)
      return
    }
    this.#handle = koffi.node.poll(this.#fd, events, this.#callback)
    if (!this.#referenced) this.#handle.unref()
  }

  stop(): void {
    started.delete(this)
    this.#handle?.stop()
  }

  /** Before the descriptor is closed. May be called again. */
  close(): void {
    this.#closed = true
    started.delete(this)
    this.#handle?.close()
    this.#handle = undefined
  }

  /** Lets the process end although this is started. */
  unref(): void {
    this.#referenced = false
    this.#handle?.unref()
  }

  ref(): void {
    this.#referenced = true
    this.#handle?.ref()
  }
}
