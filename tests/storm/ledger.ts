/** What is known of each request of a storm, put together from all journals. */
import { type JournalRecord, readJournal, recordType } from './journal.js'
import { isTwoSided, queueOf } from './plan.js'

export const known = { intent: 1, accepted: 2, refused: 4, received: 8, inBuffer: 16 } as const

const NO_VERDICT = 255

/** Requests of one process on one queue pair, by number. */
export class Line {
  readonly process: number
  readonly queuePair: number
  count = 0
  kind = new Uint8Array(1024)
  /** Slot + 1 of its memory. */
  slot = new Uint8Array(1024)
  known = new Uint8Array(1024)
  verdict = new Uint8Array(1024).fill(NO_VERDICT)
  expected = new Float64Array(1024)
  found = new Float64Array(1024)

  constructor(process: number, queuePair: number) {
    this.process = process
    this.queuePair = queuePair
  }

  reach(sequence: number): void {
    this.count = Math.max(this.count, sequence + 1)
    while (this.kind.length < this.count) {
      const before = this.kind.length
      const grown = <Values extends Uint8Array | Float64Array>(values: Values, made: Values): Values => {
        made.set(values)
        return made
      }
      this.kind = grown(this.kind, new Uint8Array(2 * before))
      this.slot = grown(this.slot, new Uint8Array(2 * before))
      this.known = grown(this.known, new Uint8Array(2 * before))
      this.verdict = grown(this.verdict, new Uint8Array(2 * before).fill(NO_VERDICT))
      this.expected = grown(this.expected, new Float64Array(2 * before))
      this.found = grown(this.found, new Float64Array(2 * before))
    }
  }

  verdictOf(sequence: number): number | undefined {
    const verdict = this.verdict[sequence]!
    return verdict === NO_VERDICT ? undefined : verdict
  }
}

export interface Found {
  readonly fault: 'duplicated' | 'reordered' | 'corrupted' | 'wrongVerdicts'
  readonly text: string
}

/** Times of completions that a process took. */
export interface Taken {
  readonly process: number
  readonly timesMs: readonly number[]
}

export class Ledger {
  readonly lines = new Map<number, Line>()
  readonly found: Found[] = []
  readonly taken: Taken[] = []

  line(process: number, queuePair: number): Line {
    const key = process * 8 + queuePair
    let line = this.lines.get(key)
    if (!line) {
      line = new Line(process, queuePair)
      this.lines.set(key, line)
    }
    return line
  }

  /** All journals' intents first: a message may be written down before the process that posted it is read. */
  add(journals: readonly { readonly process: number; readonly path: string }[]): void {
    for (const { path } of journals) this.#addPosts(path)
    for (const { process, path } of journals) this.#addTaken(process, path)
  }

  #addPosts(path: string): void {
    const open = new Map<number, JournalRecord[]>()
    for (const record of readJournal(path)) {
      if (record.type === recordType.intent) {
        const line = this.line(record.process, record.queuePair)
        line.reach(record.sequence)
        line.kind[record.sequence] = record.kind
        line.known[record.sequence]! |= known.intent
        line.expected[record.sequence] = record.value
        line.slot[record.sequence] = record.count
        const list = open.get(record.queuePair) ?? []
        list.push(record)
        open.set(record.queuePair, list)
      } else if (record.type === recordType.accepted) {
        const line = this.line(record.process, record.queuePair)
        for (const [index, { sequence }] of (open.get(record.queuePair) ?? []).entries()) {
          line.known[sequence]! |= index < record.count ? known.accepted : known.refused
        }
        open.delete(record.queuePair)
      }
    }
  }

  #addTaken(process: number, path: string): void {
    const timesMs: number[] = []
    /** Last number of each line that this process took: it takes them in the ring's order. */
    const last = { verdict: new Map<Line, number>(), received: new Map<Line, number>() }
    for (const record of readJournal(path)) {
      if (record.type === recordType.verdict) this.#verdict(record, last.verdict)
      else if (record.type === recordType.received) this.#received(record, last.received)
      else if (record.type === recordType.spoilt) this.#spoilt(record)
      else continue
      timesMs.push(record.timeMs)
    }
    this.taken.push({ process, timesMs })
  }

  #known(record: JournalRecord): Line | undefined {
    const line = this.lines.get(record.process * 8 + record.queuePair)
    if (line && record.sequence < line.count && line.known[record.sequence]! & known.intent) return line
    this.found.push({ fault: 'corrupted', text: `${nameOf(record)} was never posted` })
    return undefined
  }

  #inOrder(record: JournalRecord, line: Line, last: Map<Line, number>, what: string): void {
    const before = last.get(line) ?? -1
    if (record.sequence < before) {
      this.found.push({ fault: 'reordered', text: `${what} of ${nameOf(record)} came after that of ${before}` })
    }
    last.set(line, record.sequence)
  }

  #verdict(record: JournalRecord, last: Map<Line, number>): void {
    const line = this.#known(record)
    if (!line) return
    if (line.verdictOf(record.sequence) !== undefined) {
      this.found.push({ fault: 'wrongVerdicts', text: `${nameOf(record)} has a second verdict` })
      return
    }
    this.#inOrder(record, line, last, 'the verdict')
    line.verdict[record.sequence] = record.status
    line.found[record.sequence] = record.value
  }

  #received(record: JournalRecord, last: Map<Line, number>): void {
    if (record.status !== 1) {
      this.found.push({ fault: 'wrongVerdicts', text: `a receive in buffer ${record.count} failed` })
      return
    }
    const line = this.#known(record)
    if (!line) return
    if (!isTwoSided(record.kind) || line.kind[record.sequence] !== record.kind) {
      this.found.push({ fault: 'corrupted', text: `${nameOf(record)} came as another kind` })
    }
    if (line.known[record.sequence]! & known.received) {
      this.found.push({ fault: 'duplicated', text: `${nameOf(record)} came twice` })
      return
    }
    this.#inOrder(record, line, last, 'the message')
    line.known[record.sequence]! |= known.received
  }

  #spoilt(record: JournalRecord): void {
    const how = ['', 'its message is not whole', 'it read something else', 'it is not where it was written'][
      record.status
    ]
    this.found.push({ fault: 'corrupted', text: `${nameOf(record)}: ${how}` })
  }
}

export const nameOf = ({
  process,
  queuePair,
  sequence,
}: {
  process: number
  queuePair: number
  sequence: number
}): string => `request ${sequence} of process ${process} on queue pair ${queuePair} (queue ${queueOf(queuePair)})`
