/** Opcodes of work requests, one table. The names are the API's; numbers travel in slots. */
export const opcode = {
  send: 1,
  sendWithImmediate: 2,
  write: 3,
  writeWithImmediate: 4,
  read: 5,
  compareAndSwap: 6,
  fetchAndAdd: 7,
  /** Never posted: how completions of posted receives are labelled. */
  receive: 16,
  receiveWithImmediate: 17,
} as const

export type Opcode = (typeof opcode)[keyof typeof opcode]

export const opcodeNames = {
  1: 'send',
  2: 'send-with-immediate',
  3: 'write',
  4: 'write-with-immediate',
  5: 'read',
  6: 'compare-and-swap',
  7: 'fetch-and-add',
  16: 'receive',
  17: 'receive-with-immediate',
} as const satisfies Record<Opcode, string>

export type OpcodeName = (typeof opcodeNames)[Opcode]
export type SendOpcodeName = Exclude<OpcodeName, 'receive' | 'receive-with-immediate'>

/** Number of an opcode a user may post. */
export const sendOpcodeOf: Readonly<Record<SendOpcodeName, Opcode>> = {
  send: opcode.send,
  'send-with-immediate': opcode.sendWithImmediate,
  write: opcode.write,
  'write-with-immediate': opcode.writeWithImmediate,
  read: opcode.read,
  'compare-and-swap': opcode.compareAndSwap,
  'fetch-and-add': opcode.fetchAndAdd,
}

/** Flags of a work request, in the slot's operation word. */
export const workRequestFlag = {
  signaled: 1,
  solicited: 2,
  fence: 4,
  inline: 8,
  replayable: 16,
} as const

/** The slot's operation word: opcode in bits 7..0, flags in 15..8, scatter/gather entries in 23..16. */
export function packOperation(operation: number, flags: number, sgeCount: number): number {
  return operation | (flags << 8) | (sgeCount << 16)
}
export const operationOpcode = (operation: number): number => operation & 0xff
export const operationFlags = (operation: number): number => (operation >>> 8) & 0xff
export const operationSgeCount = (operation: number): number => (operation >>> 16) & 0xff

/** The operation word of a receive that is done: opcode and entries as above, the status in bits 31..24. */
export function packOutcome(operation: number, sgeCount: number, outcome: number): number {
  return operation | (sgeCount << 16) | (outcome << 24)
}
export const outcomeStatus = (operation: number): number => operation >>> 24
