/**
 * The verdict on a storm. What can be known, although the processes that posted and polled were killed at any instruction:
 *
 *   posted?     an intent is written before a post, how many were accepted after it. Killed between: may or may not exist; if it comes, it
 *               comes once, whole, in order.
 *   received?   written before anything else is done. A poller that is killed between taking and writing leaves the message in its
 *               receive buffer, which nobody posts again: it is found there at the end. A write with immediate leaves nothing there; of
 *               those, and of verdicts, each kill may explain one batch of polls at its own completion queue, not more.
 *   atomics     each success found another value; the counter says how many were executed
 */
import { status, statusName } from '../../protocol/statuses.js'
import { known, type Ledger, type Line, nameOf } from './ledger.js'
import { DATAGRAM, isTwoSided, kindNumber, kinds, POLL_BATCH, queueOf, SMALL_SLOTS } from './plan.js'

export interface Tally {
  messages: number
  lost: number
  duplicated: number
  reordered: number
  corrupted: number
  wrongVerdicts: number
  unknownVerdicts: number
  /** Taken by somebody who was killed before it was written down. */
  unrecorded: number
  /** Of processes that died while no broker lived: their memory was gone before the requests began. */
  refused: number
  readonly notes: string[]
}

export interface Evidence {
  readonly ledger: Ledger
  /** Node of a process, 0 or 1. */
  nodeOf(process: number): number
  isDead(process: number): boolean
  /** Pollers of a completion queue of a node that were killed. */
  killedAt(node: number, queue: number): number
  /** A counter at the end, in the memory of a node. */
  counter(node: number, queuePair: number): number
}

const MOST_NOTES = 12
const [SWAP, ADD, WRITE] = [kindNumber('compare-and-swap'), kindNumber('fetch-and-add'), kindNumber('write')]

export function judge(evidence: Evidence): Tally {
  return new Judge(evidence).tally
}

interface Sum {
  least: number
  most: number
  readonly found: Set<number>
}

class Judge {
  readonly tally: Tally = {
    ...{ messages: 0, lost: 0, duplicated: 0, reordered: 0, corrupted: 0, wrongVerdicts: 0, unknownVerdicts: 0 },
    unrecorded: 0,
    refused: 0,
    notes: [],
  }
  readonly #evidence: Evidence
  /** By node and completion queue. */
  readonly #unrecorded = new Map<string, number>()
  /** By node and queue pair of the counter. */
  readonly #sums = new Map<string, Sum>()

  constructor(evidence: Evidence) {
    this.#evidence = evidence
    for (const { fault, text } of evidence.ledger.found) this.#fault(fault, text)
    for (const line of evidence.ledger.lines.values()) {
      for (let sequence = 0; sequence < line.count; sequence++) this.#request(line, sequence)
    }
    this.#judgeUnrecorded()
    this.#judgeSums()
  }

  #fault(what: 'lost' | 'duplicated' | 'reordered' | 'corrupted' | 'wrongVerdicts', text: string): void {
    this.tally[what]++
    if (this.tally.notes.length < MOST_NOTES) this.tally.notes.push(`${what}: ${text}`)
  }

  #request(line: Line, sequence: number): void {
    const about = line.known[sequence]!
    if (!(about & known.intent)) return
    const verdict = line.verdictOf(sequence)
    const received = (about & known.received) !== 0
    const name = nameOf({ ...line, process: line.process, queuePair: line.queuePair, sequence })
    const what = `${name}, ${kinds[line.kind[sequence]!]}`
    if (about & known.refused && (received || verdict !== undefined))
      this.#fault('wrongVerdicts', `${what}: was refused`)
    if (about & known.refused) return
    const exists = (about & known.accepted) !== 0 || received || verdict !== undefined
    if (!exists && !this.#evidence.isDead(line.process)) this.#fault('lost', `${what}: a living process does not know`)
    if (exists) {
      this.tally.messages++
      this.#judgeVerdict(line, sequence, what, received)
    }
    this.#count(line, sequence, exists)
  }

  #judgeVerdict(line: Line, sequence: number, what: string, received: boolean): void {
    const kind = line.kind[sequence]!
    const verdict = line.verdictOf(sequence)
    const node = this.#evidence.nodeOf(line.process)
    if (verdict === undefined) this.#miss(node, line.queuePair)
    const good = verdict === undefined || verdict === status.success
    if (isTwoSided(kind) && good && !received) this.#missing(line, sequence, what, 1 - node)
    if (verdict === undefined || verdict === status.success) {
      const found = line.found[sequence]!
      if (verdict !== undefined && kind === SWAP && found !== line.expected[sequence])
        this.#fault('wrongVerdicts', `${what}: found ${found} for ${line.expected[sequence]}`)
      return
    }
    if (verdict === status.unknown) this.tally.unknownVerdicts++
    const mayBeUnknown = line.queuePair === DATAGRAM && (kind === WRITE || kind === ADD)
    if (verdict === status.unknown && mayBeUnknown) return
    // A dead process's memory may be gone before its request begins.
    const mayFail = verdict === status.localProtectionError && this.#diedWithItsMemory(line, sequence)
    if (mayFail && !received) this.tally.refused++
    if (!mayFail || received)
      this.#fault('wrongVerdicts', `${what}: ${statusName(verdict)}${received ? ', and it came' : ''}`)
  }

  /** Succeeded, as far as anybody knows, and nobody has written down that it came. */
  #missing(line: Line, sequence: number, what: string, receiver: number): void {
    const inBuffer = (line.known[sequence]! & known.inBuffer) !== 0
    const leavesNothing = kinds[line.kind[sequence]!] === 'write-with-immediate'
    // Its memory went with it, and who took that verdict was killed as well: counted already.
    if (line.verdictOf(sequence) === undefined && this.#diedWithItsMemory(line, sequence)) return
    if (inBuffer || leavesNothing) this.#miss(receiver, line.queuePair)
    else
      this.#fault(
        'lost',
        `${what}: ${line.verdictOf(sequence) === undefined ? 'no verdict' : 'success'}, and it never came`,
      )
  }

  #diedWithItsMemory(line: Line, sequence: number): boolean {
    return this.#evidence.isDead(line.process) && line.slot[sequence]! > SMALL_SLOTS
  }

  #miss(node: number, queuePair: number): void {
    const key = `${node} ${queueOf(queuePair)}`
    this.tally.unrecorded++
    this.#unrecorded.set(key, (this.#unrecorded.get(key) ?? 0) + 1)
  }

  #judgeUnrecorded(): void {
    for (const [key, count] of this.#unrecorded) {
      const [node = 0, queue = 0] = key.split(' ').map(Number)
      const killed = this.#evidence.killedAt(node, queue)
      const left = count - killed * POLL_BATCH
      for (let over = 0; over < left; over++) {
        this.#fault('lost', `completion queue ${queue} of node ${node}: ${count} unrecorded, ${killed} killed`)
      }
    }
  }

  #count(line: Line, sequence: number, exists: boolean): void {
    if (line.kind[sequence] !== ADD) return
    const key = `${1 - this.#evidence.nodeOf(line.process)} ${line.queuePair}`
    const sum = this.#sums.get(key) ?? { least: 0, most: 0, found: new Set<number>() }
    this.#sums.set(key, sum)
    const verdict = line.verdictOf(sequence)
    const name = nameOf({ ...line, process: line.process, queuePair: line.queuePair, sequence })
    if (verdict === status.success) {
      sum.least++
      const found = line.found[sequence]!
      if (sum.found.has(found)) this.#fault('duplicated', `${name} found ${found} like another one`)
      sum.found.add(found)
    } else if (exists && verdict === undefined && line.queuePair !== DATAGRAM) sum.least++
    if (verdict === status.success || verdict === status.unknown || verdict === undefined) sum.most++
  }

  #judgeSums(): void {
    for (const [key, { least, most }] of this.#sums) {
      const [node = 0, queuePair = 0] = key.split(' ').map(Number)
      const sum = this.#evidence.counter(node, queuePair)
      const text = `counter ${queuePair} of node ${node} is ${sum}, of ${least} to ${most}`
      if (sum < least) this.#fault('lost', text)
      if (sum > most) this.#fault('duplicated', text)
    }
  }
}
