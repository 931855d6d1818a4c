import test from 'ava'
import fc from 'fast-check'
import { limits } from '../../../protocol/limits.js'
import {
  opcode,
  opcodeNames,
  operationFlags,
  operationOpcode,
  operationSgeCount,
  packOperation,
  sendOpcodeOf,
  workRequestFlag,
} from '../../../protocol/opcodes.js'

test('the operation word gives opcode, flags and entries back', (t) => {
  const byte = fc.nat({ max: 0xff })
  fc.assert(
    fc.property(byte, byte, byte, (code, flags, sgeCount) => {
      const word = packOperation(code, flags, sgeCount)
      t.deepEqual([operationOpcode(word), operationFlags(word), operationSgeCount(word)], [code, flags, sgeCount])
      t.true(word >= 0 && word < 2 ** 24)
    }),
  )
})

test('a hostile operation word still gives three small numbers', (t) => {
  for (const word of [-1, 0x7fffffff, -0x80000000, 0xffffffff]) {
    for (const part of [operationOpcode(word), operationFlags(word), operationSgeCount(word)]) {
      t.true(part >= 0 && part <= 0xff)
    }
  }
})

test('every opcode has one number and one name, never 0', (t) => {
  const numbers = Object.values(opcode)
  t.is(new Set(numbers).size, numbers.length)
  t.true(numbers.every((number) => number > 0 && number <= 0xff))
  t.deepEqual(Object.keys(opcodeNames).map(Number).sort(), [...numbers].sort())
  for (const [key, number] of Object.entries(opcode)) {
    t.is<string, string>(
      opcodeNames[number],
      key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`),
    )
  }
})

test('everything but receives can be posted by its name', (t) => {
  const posted = Object.entries(sendOpcodeOf)
  t.is(posted.length, Object.keys(opcode).length - 2)
  for (const [name, number] of posted) t.is<string, string>(opcodeNames[number], name)
})

test('flags are single bits of a byte', (t) => {
  const bits = Object.values(workRequestFlag)
  t.is(new Set(bits).size, bits.length)
  for (const bit of bits) t.true(Number.isInteger(Math.log2(bit)) && bit <= 0x80)
  t.true(limits.scatterGatherEntries <= 0xff)
})
