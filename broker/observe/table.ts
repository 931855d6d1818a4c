/**
 * One table of the node file, as its only writer sees it. A row's number is its index. Rows are issued in rotation, so that a number
 * rests as long as possible before it comes back, and always with a new generation that is stored before anybody hears of it.
 */
import type { SectionGeometry } from '../../protocol/node-file.js'
import type { Layout, RecordOf } from '../../shm/layout.js'
import type { Memory } from '../../shm/memory.js'

/** A row of a table that is declared as this layout. */
export type RowOf<Of> = Of extends Layout<infer Fields> ? RecordOf<Fields> : never

/** The part of a layout that a table needs. */
export interface RowLayout<Row> {
  read(memory: Memory, base: number): Row
  write(memory: Memory, base: number, values: Partial<Row>): void
}

export class Table<Row extends { state: number }> {
  readonly #memory: Memory
  readonly #geometry: SectionGeometry
  readonly #layout: RowLayout<Row>
  readonly #firstRow: number
  readonly #taken: Uint8Array
  #cursor: number
  #used = 0

  /** Rows before `firstRow` are never issued: 0 means "none" in most places. */
  constructor(memory: Memory, geometry: SectionGeometry, layout: RowLayout<Row>, firstRow = 1) {
    this.#memory = memory
    this.#geometry = geometry
    this.#layout = layout
    this.#firstRow = firstRow
    this.#cursor = firstRow
    this.#taken = new Uint8Array(geometry.rows)
  }

  get rows(): number {
    return this.#geometry.rows
  }

  get used(): number {
    return this.#used
  }

  read(row: number): Row {
    return this.#layout.read(this.#memory, this.#base(row))
  }

  write(row: number, values: Partial<Row>): void {
    this.#layout.write(this.#memory, this.#base(row), values)
  }

  /** A row that is the caller's until `free`, or undefined when all are taken. */
  reserve(): number | undefined {
    const span = this.rows - this.#firstRow
    for (let tried = 0; tried < span; tried++) {
      const row = this.#cursor
      this.#cursor = row + 1 >= this.rows ? this.#firstRow : row + 1
      if (this.#taken[row] !== 0) continue
      this.hold(row)
      return row
    }
    return undefined
  }

  /** Keeps a row from being issued. */
  hold(row: number): void {
    if (this.#taken[row] !== 0) return
    this.#taken[row] = 1
    this.#used++
  }

  /** Keeps every row that an earlier writer left in use, so that its number is not issued anew while somebody may hold it. */
  holdAll(): void {
    for (const row of this.inUse()) this.hold(row)
  }

  /** Rows whose state is not 0, in order. The state is the first word of every row. */
  inUse(): number[] {
    const rows: number[] = []
    for (let row = 0; row < this.rows; row++) if (this.#memory.u32[this.#base(row) / 4] !== 0) rows.push(row)
    return rows
  }

  /** Writes everything, the state last: a reader that sees it sees the rest. */
  fill(row: number, values: Row): void {
    this.write(row, { ...values, state: 0 })
    const { state } = values
    const last: Partial<Row> = {}
    last.state = state
    this.write(row, last)
  }

  /** Every row that an earlier writer left in use is free again. */
  freeAll(): void {
    for (const row of this.inUse()) this.free(row)
  }

  /** The state alone goes to 0: what else is in the row, its generation above all, stays. May be repeated. */
  free(row: number): void {
    const free: Partial<Row> = {}
    free.state = 0 as Row['state']
    this.write(row, free)
    if (this.#taken[row] === 0) return
    this.#taken[row] = 0
    this.#used--
  }

  #base(row: number): number {
    if (!Number.isInteger(row) || row < 0 || row >= this.rows) throw new RangeError(`row ${row} of ${this.rows}`)
    return this.#geometry.offset + row * this.#geometry.rowByteLength
  }
}
