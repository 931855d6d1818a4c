import test from 'ava'
import { Arena } from '../../../broker/provider/soft-arena.js'
import { MemoryTable } from '../../../broker/provider/soft-memory.js'

const rights = { localWrite: true, remoteRead: true, remoteWrite: false }

function randomBytes(seed: number): (byteLength: number) => Uint8Array {
  let state = seed
  return (byteLength) =>
    Uint8Array.from({ length: byteLength }, () => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0
      return state >>> 24
    })
}

test('a region is found by exactly its own two keys, until it is deregistered', (t) => {
  const pages = new Arena(4096)
  const table = new MemoryTable(randomBytes(1))
  const regions = Array.from({ length: 300 }, () => table.register(pages.memory.address, 4096, 1, rights)!)
  t.is(table.count, 300)
  for (const region of regions) {
    t.is(table.byLocalKey(region.localKey), region)
    t.is(table.byRemoteKey(region.remoteKey), region)
    t.is(table.byRemoteKey(region.remoteKey | 0), region, 'signed, as it comes from the wire')
    for (const bit of [0, 3, 7]) {
      t.is(table.byLocalKey(region.localKey ^ (1 << bit)), null)
      t.is(table.byRemoteKey(region.remoteKey ^ (1 << bit)), null)
    }
  }
  const [first] = regions
  t.true(table.deregister(first!))
  t.false(first!.alive)
  t.false(table.deregister(first!))
  t.is(table.byLocalKey(first!.localKey), null)
  t.is(table.byRemoteKey(first!.remoteKey), null)
  t.is(table.count, 299)
  pages.close()
})

test('a slot that is used again has other keys', (t) => {
  const pages = new Arena(4096)
  const table = new MemoryTable(randomBytes(2))
  const lastOf = new Map<number, number>()
  for (let round = 0; round < 2000; round++) {
    const region = table.register(pages.memory.address, 100, 1, rights)!
    const slot = region.localKey >>> 8
    t.not(lastOf.get(slot), region.localKey)
    lastOf.set(slot, region.localKey)
    table.deregister(region)
  }
  t.true(lastOf.size < 30, 'slots are used again')
  pages.close()
})

test('any byte length may be registered', (t) => {
  const pages = new Arena(4096)
  const table = new MemoryTable(randomBytes(3))
  for (const byteLength of [1, 7, 8, 9, 4095])
    t.is(table.register(pages.memory.address, byteLength, 1, rights)!.byteLength, byteLength)
  pages.close()
})

test('domains in use are known', (t) => {
  const pages = new Arena(4096)
  const table = new MemoryTable(randomBytes(4))
  const region = table.register(pages.memory.address, 8, 7, rights)!
  t.true(table.usesDomain(7))
  t.false(table.usesDomain(8))
  table.deregister(region)
  t.false(table.usesDomain(7))
  pages.close()
})

test('a region of two gigabytes and more is reached at both of its ends', (t) => {
  const byteLength = 2 ** 31 + 4096
  const pages = new Arena(byteLength)
  const region = new MemoryTable(randomBytes(4)).register(pages.memory.address, byteLength, 1, rights)!
  t.is(region.byteLength, byteLength)
  pages.memory.u8[byteLength - 1] = 7
  t.is(region.memory.u8[byteLength - 1], 7)
  t.is(region.memory.i64.length, byteLength / 8)
  pages.close()
})
