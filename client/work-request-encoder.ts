/**
 * Work requests into slots. First everything is checked, for the whole list, then slots are claimed, then everything is
 * written: a mistake of the caller throws while nothing has happened yet. What is checked is form (types, integers,
 * counts, what fits the slot's fields). Bounds, rights, keys and lengths are the broker's to judge.
 */
import { limits } from '../protocol/limits.js'
import {
  opcode,
  operationFlags,
  operationOpcode,
  operationSgeCount,
  packOperation,
  sendOpcodeOf,
  workRequestFlag,
} from '../protocol/opcodes.js'
import { entryWord, receiveSlot, scatterGatherEntry, sendSlot } from '../protocol/queue-pair-segment.js'
import type { Attachment } from './attachment.js'
import type { QueuePairSegment } from './queue-pair-segment.js'
import type { EntryFields, ReceiveWorkRequest, ScatterGatherEntry, SendFields } from './work-request.js'
import { refuse, refuseDestination, refuseEntry } from './work-request-refusal.js'

const opcodeByName: ReadonlyMap<unknown, number> = new Map(Object.entries(sendOpcodeOf))
/** Lists mostly repeat one opcode, and comparing a name costs less than looking it up. */
let lastOpcodeName: unknown = 'send'
let lastOpcode = opcodeByName.get('send')!

const SEND = sendSlot.word
const SEND_ID = sendSlot.offset.id / 8
const SEND_REMOTE_KEY = sendSlot.offset.remoteKey / 8
const SEND_REMOTE_OFFSET = sendSlot.offset.remoteOffset / 8
const SEND_COMPARE = sendSlot.offset.compare / 8
const SEND_SWAP = sendSlot.offset.swap / 8
const SEND_FIRST_ENTRY = sendSlot.word.firstEntry
const SEND_FURTHER_ENTRIES = sendSlot.word.furtherEntries
const RECEIVE = receiveSlot.word
const RECEIVE_ID = receiveSlot.offset.id / 8
const RECEIVE_FIRST_ENTRY = receiveSlot.word.firstEntry
const RECEIVE_FURTHER_ENTRIES = receiveSlot.word.furtherEntries
const ENTRY_KEY = scatterGatherEntry.offset.key / 8
const ENTRY_OFFSET = scatterGatherEntry.word.offset
const ENTRY_LENGTH = scatterGatherEntry.word.byteLength

const NEEDS_REMOTE =
  (1 << opcode.write) |
  (1 << opcode.writeWithImmediate) |
  (1 << opcode.read) |
  (1 << opcode.compareAndSwap) |
  (1 << opcode.fetchAndAdd)
const NEEDS_IMMEDIATE = (1 << opcode.sendWithImmediate) | (1 << opcode.writeWithImmediate)
const ALLOWS_INLINE =
  (1 << opcode.send) | (1 << opcode.sendWithImmediate) | (1 << opcode.write) | (1 << opcode.writeWithImmediate)
const ATOMIC = (1 << opcode.compareAndSwap) | (1 << opcode.fetchAndAdd)

const LOWEST_OPERAND = -(2n ** 63n)
const HIGHEST_OPERAND = 2n ** 64n - 1n

/** The queue pair posted to: what a check needs to know of it, and where its slots lie, one step away. */
export class PostingTarget {
  readonly attachment: Attachment
  readonly maxInline: number
  readonly isDatagram: boolean
  readonly u8: Uint8Array
  readonly u32: Uint32Array
  readonly f64: Float64Array
  readonly i64: BigInt64Array
  /** State words of the first slots and words from slot to slot. */
  readonly sendBase: number
  readonly sendWords: number
  readonly receiveBase: number
  readonly receiveWords: number

  constructor(attachment: Attachment, { grant, memory, send, receive }: QueuePairSegment) {
    this.attachment = attachment
    this.maxInline = grant.inlineByteLength
    this.isDatagram = grant.type === 'datagram'
    this.u8 = memory.u8
    this.u32 = memory.u32
    this.f64 = memory.f64
    this.i64 = memory.i64
    this.sendBase = send.slotBase
    this.sendWords = send.slotWords
    this.receiveBase = receive.slotBase
    this.receiveWords = receive.slotWords
  }
}

/** The slot's operation word. Throws `invalid-argument` or `address-not-resolved`. */
export function checkSend(request: SendFields, target: PostingTarget): number {
  const code = request.opcode === lastOpcodeName ? lastOpcode : opcodeOf(request.opcode)
  if (!isInteger(request.id)) refuse('id', request.id, 'a safe integer')
  const bit = 1 << code
  if ((bit & NEEDS_REMOTE) !== 0) checkRemote(request)
  if ((bit & NEEDS_IMMEDIATE) !== 0) checkImmediate(request)
  if ((bit & ATOMIC) !== 0) checkOperands(request, code)
  if (target.isDatagram || request.destination !== undefined) checkDestination(request, target)
  const { local, inline } = request
  const entries = local === undefined ? 0 : checkEntries(local, target.attachment)
  const flags = flagsOf(request)
  if (inline === undefined || inline === false) return packOperation(code, flags, entries)
  if ((bit & ALLOWS_INLINE) === 0) refuse('inline', inline, `absent: ${request.opcode} brings no payload`)
  checkInline(request, inline, target.maxInline)
  return packOperation(code, flags | workRequestFlag.inline, 0)
}

/** Number of entries. Throws `invalid-argument`. */
export function checkReceive(request: ReceiveWorkRequest, target: PostingTarget): number {
  if (!isInteger(request.id)) refuse('id', request.id, 'a safe integer')
  return request.local === undefined ? 0 : checkEntries(request.local, target.attachment)
}

/** Writes the body of a claimed slot with plain stores; the commit of the list publishes them. */
export function writeSend(
  target: PostingTarget,
  slot: number,
  generation: number,
  request: SendFields,
  operation: number,
): void {
  const { u32, f64, sendBase, sendWords } = target
  const base = sendBase + slot * sendWords
  const wide = base >>> 1
  const bit = 1 << operationOpcode(operation)
  u32[base + SEND.generation] = generation
  u32[base + SEND.operation] = operation
  f64[wide + SEND_ID] = request.id
  if ((bit & NEEDS_REMOTE) !== 0) {
    const { key, offset } = request.remote!
    f64[wide + SEND_REMOTE_KEY] = key
    f64[wide + SEND_REMOTE_OFFSET] = offset
  }
  if ((bit & NEEDS_IMMEDIATE) !== 0) u32[base + SEND.immediate] = request.immediate!
  if ((bit & ATOMIC) !== 0) writeOperands(target, wide, request, operationOpcode(operation))
  if (target.isDatagram) writeDestination(target, base, request)
  if ((operationFlags(operation) & workRequestFlag.inline) !== 0) writeInline(target, base, request)
  else {
    const entries = operationSgeCount(operation)
    writeEntries(target, base + SEND_FIRST_ENTRY, base + SEND_FURTHER_ENTRIES, request.local, entries)
  }
}

export function writeReceive(
  target: PostingTarget,
  slot: number,
  generation: number,
  request: ReceiveWorkRequest,
  entries: number,
): void {
  const { u32, f64, receiveBase, receiveWords } = target
  const base = receiveBase + slot * receiveWords
  u32[base + RECEIVE.generation] = generation
  u32[base + RECEIVE.operation] = packOperation(opcode.receive, workRequestFlag.signaled, entries)
  f64[(base >>> 1) + RECEIVE_ID] = request.id
  writeEntries(target, base + RECEIVE_FIRST_ENTRY, base + RECEIVE_FURTHER_ENTRIES, request.local, entries)
}

function opcodeOf(name: unknown): number {
  const code = opcodeByName.get(name)
  if (code === undefined) return refuse('opcode', name, `one of ${[...opcodeByName.keys()].join(', ')}`)
  lastOpcodeName = name
  lastOpcode = code
  return code
}

const isUnsigned32 = (value: unknown): value is number => typeof value === 'number' && value >>> 0 === value
/** Small integers, the usual ones, are recognised without a call. */
const isInteger = (value: unknown): value is number =>
  typeof value === 'number' && ((value | 0) === value || Number.isSafeInteger(value))
const isOffset = (value: unknown): value is number => isInteger(value) && value >= 0

function checkRemote({ remote }: SendFields): void {
  if (typeof remote !== 'object' || remote === null) refuse('remote', remote, '{ key, offset }')
  if (!isOffset(remote.key)) refuse('remote.key', remote.key, "a region's remoteKey")
  if (!isOffset(remote.offset)) refuse('remote.offset', remote.offset, 'a safe integer from 0')
}

function checkImmediate({ immediate }: SendFields): void {
  if (!isUnsigned32(immediate)) refuse('immediate', immediate, 'a whole number below 2^32')
}

function checkOperands({ compare, swap, add }: SendFields, code: number): void {
  if (code === opcode.fetchAndAdd) {
    checkOperand('add', add)
  } else {
    checkOperand('compare', compare)
    checkOperand('swap', swap)
  }
}

function checkOperand(name: string, value: unknown): void {
  if (typeof value === 'bigint' && value >= LOWEST_OPERAND && value <= HIGHEST_OPERAND) return
  refuse(name, value, 'a bigint of 64 bits, signed or unsigned')
}

function checkDestination({ destination }: SendFields, target: PostingTarget): void {
  if (!target.isDatagram) refuse('destination', destination, 'absent: the queue pair is a connected one')
  if (typeof destination !== 'object' || destination === null) {
    refuse('destination', destination, 'the address of a queue pair: this one is a datagram queue pair')
  }
  if (!isUnsigned32(destination.number)) refuse('destination.number', destination.number, 'a whole number')
  if (!isUnsigned32(destination.generation)) refuse('destination.generation', destination.generation, 'a whole number')
  if (!target.attachment.resolvedNodes.has(destination.node)) refuseDestination(destination)
}

function checkEntries(local: readonly ScatterGatherEntry[], attachment: Attachment): number {
  if (!Array.isArray(local)) return refuse('local', local, 'an array of { region, offset, length }')
  if (local.length > limits.scatterGatherEntries) {
    refuse('local.length', local.length, `at most ${limits.scatterGatherEntries}`)
  }
  for (let index = 0; index < local.length; index++) checkEntry(local[index] as EntryFields, index, attachment)
  return local.length
}

function checkEntry(entry: EntryFields, index: number, attachment: Attachment): void {
  if (typeof entry !== 'object' || entry === null) refuse(`local[${index}]`, entry, '{ region, offset, length }')
  const { region } = entry
  const named = region === undefined ? isOffset(entry.key) : region.attachment === attachment && region.open
  if (!named) refuseEntry(entry, index)
  if (!isUnsigned32(entry.offset)) refuse(`local[${index}].offset`, entry.offset, 'a whole number below 2^32')
  if (!isUnsigned32(entry.length)) refuse(`local[${index}].length`, entry.length, 'a whole number below 2^32')
}

function flagsOf({ signaled, solicited, fence, replayable }: SendFields): number {
  const always = signaled === undefined || signaled === true ? workRequestFlag.signaled : unsignaled(signaled)
  // The rare ones are mostly absent, and one look tells for all three.
  if (solicited === undefined && fence === undefined && replayable === undefined) return always
  return (
    always |
    flag('solicited', solicited, workRequestFlag.solicited) |
    flag('fence', fence, workRequestFlag.fence) |
    flag('replayable', replayable, workRequestFlag.replayable)
  )
}

function unsignaled(value: unknown): number {
  return value === false ? 0 : refuse('signaled', value, 'true or false')
}

function flag(name: string, value: unknown, mask: number): number {
  if (value === undefined) return 0
  if (typeof value !== 'boolean') return refuse(name, value, 'true or false')
  return value ? mask : 0
}

function checkInline({ local }: SendFields, inline: unknown, maxInline: number): void {
  if (inline instanceof Uint8Array) {
    if (local !== undefined && local.length > 0) refuse('inline', inline, 'true when local is given')
    if (inline.length > maxInline) refuse('inline.length', inline.length, `at most ${maxInline} (maxInline)`)
    return
  }
  if (inline !== true) refuse('inline', inline, 'a Uint8Array, true or false')
  let total = 0
  for (const [index, entry] of (local ?? []).entries()) {
    const { region, offset, length } = entry as EntryFields
    if (!region || offset + length > region.byteLength) refuseEntry(entry, index)
    total += length
  }
  if (total > maxInline) refuse('inline', total, `at most ${maxInline} bytes in local (maxInline)`)
}

function writeOperands({ i64 }: PostingTarget, wide: number, request: SendFields, code: number): void {
  if (code === opcode.compareAndSwap) i64[wide + SEND_COMPARE] = request.compare!
  i64[wide + SEND_SWAP] = code === opcode.compareAndSwap ? request.swap! : request.add!
}

function writeDestination({ attachment, u32 }: PostingTarget, base: number, request: SendFields): void {
  const { node, number, generation } = request.destination!
  u32[base + SEND.destinationNode] = attachment.resolvedNodes.get(node)!
  u32[base + SEND.destinationNumber] = number
  u32[base + SEND.destinationGeneration] = generation
}

function writeEntries(
  { u32, f64 }: PostingTarget,
  first: number,
  further: number,
  local: readonly ScatterGatherEntry[] | undefined,
  count: number,
): void {
  for (let index = 0; index < count; index++) {
    const entry = local![index] as EntryFields
    const base = entryWord(first, further, index)
    f64[(base >>> 1) + ENTRY_KEY] = entry.region === undefined ? entry.key! : entry.region.localKey
    u32[base + ENTRY_OFFSET] = entry.offset
    u32[base + ENTRY_LENGTH] = entry.length
  }
}

function writeInline({ u8, u32 }: PostingTarget, base: number, { inline, local }: SendFields): void {
  const start = (base + SEND_FURTHER_ENTRIES) * 4
  if (inline instanceof Uint8Array) {
    u8.set(inline, start)
    u32[base + SEND.inlineByteLength] = inline.length
    return
  }
  let at = start
  for (const entry of local ?? []) {
    const { region, offset, length } = entry as EntryFields
    u8.set(region!.bytes.subarray(offset, offset + length), at)
    at += length
  }
  u32[base + SEND.inlineByteLength] = at - start
}
