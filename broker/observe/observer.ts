/** Where everybody in the control plane says what happened: log, distinct errors, events, counters, in one object. */
import { SharedVerbsError } from '../../protocol/errors.js'
import type { ControlPlaneCounter, Counters } from './counters.js'
import type { ErrorLog } from './error-log.js'
import type { EventRing } from './event-ring.js'
import type { Logger } from './logger.js'

export class Observer {
  readonly log: Logger
  readonly counters: Counters
  readonly #errors: ErrorLog
  readonly #events: EventRing

  constructor(log: Logger, parts: { counters: Counters; errors: ErrorLog; events: EventRing }) {
    this.log = log
    this.counters = parts.counters
    this.#errors = parts.errors
    this.#events = parts.events
  }

  count(name: ControlPlaneCounter, amount = 1): void {
    this.counters.add(name, amount)
  }

  /** Something that an operator may want to know later. `kind` is a short fixed word. */
  note(kind: string, message: string): void {
    this.#events.note(kind, message)
    this.log.info({ kind }, message)
  }

  /**
   * Something that should not be. `subject` is who or what it was about, so that different subjects stay apart. It is logged when it
   * is seen for the first, second, fourth, eighth … time: whoever can cause it must not be able to fill a disk.
   */
  report(error: unknown, subject: string): void {
    const known = error instanceof SharedVerbsError
    const code = known ? error.code : 'internal-error'
    const message = error instanceof Error ? error.message : String(error)
    const count = this.#errors.observe(code, subject, `${subject}: ${message}`)
    if ((count & (count - 1)) !== 0) return
    if (known) this.log.warn({ code, subject, count }, message)
    else this.log.error({ code, subject, count, stack: error instanceof Error ? error.stack : undefined }, message)
  }
}
