/** The last few hundred things that happened, in the node file: what an operator reads first when something is odd. */
import type { eventRow } from '../../protocol/node-file.js'
import type { RowOf, Table } from './table.js'

type EventRow = RowOf<typeof eventRow>

export class EventRing {
  readonly #table: Table<EventRow>
  readonly #wallTimeMs: () => number
  #sequence: number

  /** `sequence` is the last one that an earlier broker of this file used. */
  constructor(table: Table<EventRow>, wallTimeMs: () => number, sequence: number) {
    this.#table = table
    this.#wallTimeMs = wallTimeMs
    this.#sequence = sequence
  }

  note(kind: string, message: string): void {
    this.#sequence++
    const row = this.#sequence % this.#table.rows
    this.#table.fill(row, { state: 1, sequence: this.#sequence, timeMs: this.#wallTimeMs(), kind, message })
  }
}
