import { closeSync, fstatSync, ftruncateSync, mkdtempSync, openSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { ShmError } from '../../../shm/errors.js'
import * as libc from '../../../shm/libc.js'
import { fileIdentity, Mapping, wholePages } from '../../../shm/mapping.js'
import { Child, openDescriptors, until } from './fixtures/child.js'

function closing(t: ExecutionContext, mapping: Mapping): Mapping {
  t.teardown(() => mapping.close())
  return mapping
}

const invalid = { instanceOf: ShmError, code: 'segment-invalid' }

test('a segment is zeroed, whole pages long, present from the start, and sealed', (t) => {
  const mapping = closing(t, Mapping.create('fresh', 5000))
  t.is(mapping.byteLength, 8192)
  t.is(mapping.memory.byteLength, 8192)
  t.true(mapping.memory.u8.every((byte) => byte === 0))
  const { size, blocks } = fstatSync(mapping.fd)
  t.is(size, 8192)
  t.is(blocks * 512, 8192)
  t.is(libc.getSeals(mapping.fd) & 0x1f, libc.SEAL_SHRINK | libc.SEAL_GROW | libc.SEAL_SEAL)
})

test('two mappings of one segment are the same words', (t) => {
  const one = closing(t, Mapping.create('shared', 4096))
  const two = closing(t, Mapping.attach(libc.duplicate(one.fd), { byteLength: 4096, writable: true }))
  one.words.store(9, 42)
  t.is(two.words.compareExchange(9, 42, 43), 42)
  t.is(one.words.load(9), 43)
  t.deepEqual(one.identity, two.identity)
  t.deepEqual(fileIdentity(one.fd), one.identity)
  t.notDeepEqual(one.identity, closing(t, Mapping.create('other', 4096)).identity)
})

test('a holder of the descriptor cannot resize, reseal or, if read-only, map it writable', async (t) => {
  const writable = closing(t, Mapping.create('writable', 4096))
  const readOnly = closing(t, Mapping.createReadOnlyShared('read-only', 4096))
  const answers = async (mapping: Mapping): Promise<string[]> => {
    const child = Child.start(t, 'rogue.ts', [mapping.fd])
    return [await child.line(), await child.line(), await child.line(), await child.line(), await child.line()]
  }
  t.deepEqual(await answers(writable), [
    'shrink EPERM',
    'grow EPERM',
    'seal EPERM',
    'map succeeded',
    'reopen succeeded',
  ])
  t.deepEqual(await answers(readOnly), ['shrink EPERM', 'grow EPERM', 'seal EPERM', 'map EPERM', 'reopen EPERM'])
})

test('the creator of a read-only share still writes, and others read it', (t) => {
  const mine = closing(t, Mapping.createReadOnlyShared('page', 4096))
  const theirs = closing(t, Mapping.attach(libc.duplicate(mine.fd), { byteLength: 4096, writable: false }))
  mine.words.store(0, 5)
  t.is(theirs.words.load(0), 5)
  const fd = libc.duplicate(mine.fd)
  t.throws(() => Mapping.attach(fd, { byteLength: 4096, writable: true }), invalid)
  libc.closeDescriptor(fd)
})

test("a segment without all seals, of another size or of another kind is refused and stays the caller's", (t) => {
  const fd = libc.memfdCreate('hostile')
  libc.ftruncate(fd, 4096)
  const attach = () => Mapping.attach(fd, { byteLength: 4096, writable: true })
  t.throws(attach, invalid)
  libc.addSeals(fd, libc.SEAL_SHRINK | libc.SEAL_GROW)
  t.throws(attach, invalid)
  libc.addSeals(fd, libc.SEAL_SEAL)
  t.throws(() => Mapping.attach(fd, { byteLength: 8192, writable: true }), invalid)
  t.throws(() => Mapping.attach(fd, { byteLength: 0, writable: true }), { code: 'out-of-bounds' })
  t.notThrows(() => Mapping.attach(fd, { byteLength: 4096, writable: true }).close())

  const folder = mkdtempSync(join(tmpdir(), 'shm-mapping-'))
  const file = openSync(join(folder, 'file'), 'w+')
  ftruncateSync(file, 4096)
  t.throws(() => Mapping.attach(file, { byteLength: 4096, writable: true }), invalid)
  closeSync(file)
  rmSync(folder, { recursive: true })
  t.throws(() => Mapping.attach(99_999, { byteLength: 4096, writable: true }), {
    instanceOf: libc.SystemCallError,
    code: 'EBADF',
  })
})

test('a regular file is mapped without taking its descriptor', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'shm-mapping-'))
  const fd = openSync(join(folder, 'file'), 'w+')
  t.throws(() => Mapping.file(fd, 4096, true), invalid)
  ftruncateSync(fd, 8192)
  const writer = Mapping.file(fd, 4096, true)
  const reader = Mapping.file(fd, 4096, false)
  writer.memory.u8[7] = 77
  t.is(reader.memory.u8[7], 77)
  writer.close()
  reader.close()
  t.is(fstatSync(fd).size, 8192)
  closeSync(fd)
  rmSync(folder, { recursive: true })
})

test('a view of a mapping shares its words and leaves it alone when closed', (t) => {
  const mapping = closing(t, Mapping.create('viewed', 4096))
  const view = Mapping.at(mapping.address, 4096)
  view.words.store(3, 33)
  t.is(mapping.words.load(3), 33)
  t.is(view.fd, -1)
  t.throws(() => view.identity, { code: 'mapping-closed' })
  view.close()
  t.throws(() => view.words, { code: 'mapping-closed' })
  t.is(mapping.words.load(3), 33)
})

test('close may be repeated, gives the pages back and leaves stragglers nothing but zeroes', (t) => {
  const mapping = Mapping.create('closed', 4096)
  const keeper = closing(t, Mapping.attach(libc.duplicate(mapping.fd), { byteLength: 4096, writable: true }))
  const { memory, words } = mapping
  words.store(0, 11)
  mapping.close()
  mapping.close()
  t.true(mapping.closed)
  for (const use of [() => mapping.memory, () => mapping.words, () => mapping.identity]) {
    t.throws(use, { instanceOf: ShmError, code: 'mapping-closed' })
  }
  t.is(words.load(0), 0)
  t.is(memory.u8[0], 0)
  words.store(0, 99)
  t.is(keeper.words.load(0), 11)
})

test('a segment larger than the memory that is left is refused before a page is taken', (t) => {
  t.throws(() => Mapping.create('huge', 2 ** 46), { code: 'memory-exhausted' })
})

test('lengths are rounded to whole pages and nonsense is refused', (t) => {
  t.is(wholePages(1), 4096)
  t.is(wholePages(4096), 4096)
  for (const length of [0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY]) {
    t.throws(() => wholePages(length), { code: 'out-of-bounds' })
  }
})

test.serial('many mappings leave no descriptor and no address range behind', async (t) => {
  const { setFlagsFromString } = await import('node:v8')
  const { runInNewContext } = await import('node:vm')
  const { readFileSync } = await import('node:fs')
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  // Counted in bytes: neighbouring ranges are merged, and the engine's own heap comes and goes in small ones.
  const mapped = (): number => Number(readFileSync('/proc/self/statm', 'utf8').split(' ')[0]) * libc.PAGE_BYTES
  const [rounds, byteLength] = [300, 2 ** 20]
  const [descriptors, before] = [openDescriptors(), mapped()]
  for (let round = 0; round < rounds; round++) Mapping.create(`round ${round}`, byteLength).close()
  // Another thread of this process may have a file open for a moment.
  await until('the descriptors to be closed', () => openDescriptors() <= descriptors)
  await until('the ranges to be unmapped', () => {
    collect()
    return mapped() < before + (rounds * byteLength) / 4
  })
  t.pass()
})
