/** `punched-child.js ordinary|huge`: registers a mapped file, takes its pages away and its pool too, then reads and registers again. */
import { writeFileSync } from 'node:fs'
import koffi from 'koffi'
import { mmap, view } from '../../../shm/libc.js'
import { allRights, Rig } from '../../conformance/provider/rig.js'
import { verbsFactory } from '../guest/conformance.js'

const BYTES = 2 << 20
const HUGE = 4
const PUNCH_AND_KEEP_SIZE = 3
const libc = koffi.load('libc.so.6')
const createFile = libc.func('memfd_create', 'int', ['str', 'uint'])
const resize = libc.func('ftruncate', 'int', ['int', 'int64'])
const allocate = libc.func('fallocate', 'int', ['int', 'int', 'int64', 'int64'])

const fd: number = createFile('punched', process.argv[2] === 'huge' ? HUGE : 0)
if (resize(fd, BYTES) !== 0) throw new Error('the file cannot be made')
const address = mmap(fd, BYTES, { write: true })
const words = new Uint32Array(view(address, BYTES))
words.fill(7)
const rig = new Rig(verbsFactory)
const player = rig.player(rig.open('punched'))
const register = (): string => {
  const { failure, result } = rig.attempt((done) =>
    player.device.registerMemory(player.domain, address, BYTES, allRights, done),
  )
  return failure?.message ?? (result === null ? 'nothing' : 'registered')
}
const first = register()
if (allocate(fd, PUNCH_AND_KEEP_SIZE, 0, BYTES) !== 0) throw new Error('no hole could be made')
writeFileSync('/proc/sys/vm/nr_hugepages', '0')
const again = register()
process.stdout.write(`before: ${first}; in the hole: ${again}; it reads `)
process.stdout.write(`${words[0]}\n`)
rig.close()
