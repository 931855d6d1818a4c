/**
 * Distinct errors in the node file: one row for each code and subject, with a count, so that a storm of one error neither fills a
 * disk nor hides another. When all rows are taken the one that was quiet longest is given up.
 */
import type { errorRow } from '../../protocol/node-file.js'
import type { RowOf, Table } from './table.js'

type ErrorRow = RowOf<typeof errorRow>

export class ErrorLog {
  readonly #table: Table<ErrorRow>
  readonly #wallTimeMs: () => number
  /** Insertion order is the order of the last observation. */
  readonly #rows = new Map<string, number>()

  constructor(table: Table<ErrorRow>, wallTimeMs: () => number) {
    this.#table = table
    this.#wallTimeMs = wallTimeMs
  }

  /** Returns how often this error was seen, this time included. */
  observe(code: string, subject: string, message: string): number {
    const key = `${code} ${subject}`
    const known = this.#rows.get(key)
    const nowMs = this.#wallTimeMs()
    if (known === undefined) {
      const row = this.#table.reserve() ?? this.#giveUpQuietest()
      this.#rows.set(key, row)
      this.#table.fill(row, { state: 1, count: 1, firstTimeMs: nowMs, lastTimeMs: nowMs, code, message })
      return 1
    }
    this.#rows.delete(key)
    this.#rows.set(key, known)
    const count = this.#table.read(known).count + 1
    this.#table.write(known, { count, lastTimeMs: nowMs, message })
    return count
  }

  #giveUpQuietest(): number {
    for (const [key, row] of this.#rows) {
      this.#rows.delete(key)
      return row
    }
    return 0
  }
}
