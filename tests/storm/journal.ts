/**
 * What each process has seen, in a file of its own that survives its death: records of fixed length, appended by one system call for each
 * step, so that a killed process leaves whole records and at most one torn one, which does not count.
 *
 *   intent      before a post: the request may exist from here on
 *   accepted    after it: so many of the intents do exist
 *   verdict     a completion of a send, written before anything is done about it
 *   received    a message, likewise
 *   spoilt      what was received, read or found in a landing is not what was sent
 */
import { closeSync, openSync, readFileSync, writeSync } from 'node:fs'

export const recordType = { intent: 1, accepted: 2, verdict: 3, received: 4, spoilt: 5 } as const

export interface JournalRecord {
  readonly type: number
  readonly kind: number
  readonly queuePair: number
  /** Status of a verdict; 1: success of a received one. */
  readonly status: number
  /** Who posted the request that this is about. */
  readonly process: number
  readonly sequence: number
  /** Of an intent its slot + 1; accepted ones; buffer of a received one. */
  readonly count: number
  readonly timeMs: number
  /** What an atomic is to find, and what it found. */
  readonly value: number
}

const RECORD_BYTES = 32
const ROOM = 256

/** The machine's monotonic clock, the same for all processes. */
const beginning = Number(process.hrtime.bigint()) / 1e6 - performance.now()
export const machineMs = (): number => beginning + performance.now()

export class JournalWriter {
  readonly #fd: number
  readonly #bytes = Buffer.alloc(ROOM * RECORD_BYTES)
  #count = 0

  constructor(path: string) {
    this.#fd = openSync(path, 'a', 0o600)
  }

  add(record: JournalRecord): void {
    const at = this.#count++ * RECORD_BYTES
    const bytes = this.#bytes
    bytes[at] = record.type
    bytes[at + 1] = record.kind
    bytes[at + 2] = record.queuePair
    bytes[at + 3] = record.status
    bytes.writeUInt32LE(record.process, at + 4)
    bytes.writeUInt32LE(record.sequence, at + 8)
    bytes.writeUInt32LE(record.count, at + 12)
    bytes.writeDoubleLE(record.timeMs, at + 16)
    bytes.writeDoubleLE(record.value, at + 24)
    if (this.#count === ROOM) this.write()
  }

  /** Everything added becomes part of the file. */
  write(): void {
    if (this.#count > 0) writeSync(this.#fd, this.#bytes, 0, this.#count * RECORD_BYTES)
    this.#count = 0
  }

  close(): void {
    this.write()
    closeSync(this.#fd)
  }
}

export function* readJournal(path: string): Generator<JournalRecord> {
  const bytes = readFileSync(path)
  for (let at = 0; at + RECORD_BYTES <= bytes.byteLength; at += RECORD_BYTES) {
    yield {
      type: bytes[at]!,
      kind: bytes[at + 1]!,
      queuePair: bytes[at + 2]!,
      status: bytes[at + 3]!,
      process: bytes.readUInt32LE(at + 4),
      sequence: bytes.readUInt32LE(at + 8),
      count: bytes.readUInt32LE(at + 12),
      timeMs: bytes.readDoubleLE(at + 16),
      value: bytes.readDoubleLE(at + 24),
    }
  }
}
