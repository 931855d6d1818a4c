import { writeFileSync } from 'node:fs'
import test from 'ava'
import fc from 'fast-check'
import { Condition } from '../../../broker/control/condition.js'
import { defaultLimits } from '../../../broker/control/limits.js'
import { ReplyMemory } from '../../../broker/control/reply-memory.js'
import { within } from '../../../broker/control/within.js'
import { encodeFrame, FrameReader } from '../../../broker/peers/frames.js'
import { judge } from '../../../broker/peers/heartbeat.js'
import { domainProof, linkProof, preSharedKey, sameProof } from '../../../broker/peers/link-security.js'
import { PeerAddresses, parseAddress, printAddress } from '../../../broker/peers/peer-addresses.js'
import { Accounts } from '../../../broker/sessions/accounts.js'
import { printSharingKey } from '../../../broker/sharing/sharing-key.js'
import { SharedVerbsError } from '../../../protocol/errors.js'
import { linkMessageByteLength } from '../../../protocol/link.js'
import { errorRow, nodeFileGeometry } from '../../../protocol/node-file.js'
import { temporaryDirectory } from '../../support/temporary-directory.js'
import { ManualClock } from './manual-clock.js'
import { peerGround } from './peer-node.js'

test('frames come out whole however the stream is cut', (t) => {
  const message = fc.uint8Array({ minLength: 1, maxLength: 200 })
  fc.assert(
    fc.property(fc.array(message, { maxLength: 8 }), fc.array(fc.integer({ min: 1, max: 60 })), (messages, cuts) => {
      const stream = Buffer.concat(messages.map(encodeFrame))
      const reader = new FrameReader()
      const found: Uint8Array[] = []
      let start = 0
      for (const cut of [...cuts, stream.byteLength]) {
        found.push(...reader.push(stream.subarray(start, start + cut)))
        start += cut
      }
      t.deepEqual(
        found.map((one) => Buffer.from(one)),
        messages.map((one) => Buffer.from(one)),
      )
    }),
  )
})

test('a frame of impossible length ends the stream', (t) => {
  for (const byteLength of [0, linkMessageByteLength + 1, 0xffffffff]) {
    const prefix = Buffer.alloc(4)
    prefix.writeUInt32LE(byteLength)
    t.throws(() => new FrameReader().push(prefix), { instanceOf: SharedVerbsError, message: /1 to 16384/ })
  }
})

test('addresses are host and port, with a default', (t) => {
  t.deepEqual(parseAddress('10.0.0.2:99', 'b'), { host: '10.0.0.2', port: 99 })
  t.deepEqual(parseAddress('b.example', 'b'), { host: 'b.example', port: 7471 })
  t.deepEqual(parseAddress('[::1]:5', 'b'), { host: '::1', port: 5 })
  t.is(printAddress({ host: '::1', port: 5 }), '[::1]:5')
  for (const wrong of ['', ':5', 'host:0', 'host:70000', 'two words:1', '::1:5']) {
    t.throws(() => parseAddress(wrong, 'b'), { message: /is not host:port/ })
  }
})

test('the peers file is read again each time, and the operator goes first', (t) => {
  const file = `${temporaryDirectory(t)}/peers`
  const addresses = new PeerAddresses({ told: '1.1.1.1:1' }, file)
  t.deepEqual(addresses.find('beta'), { host: 'beta', port: 7471 })
  writeFileSync(file, '# nodes\nbeta 2.2.2.2:2   # the second\n\ntold 9.9.9.9:9\n')
  t.deepEqual(addresses.find('beta'), { host: '2.2.2.2', port: 2 })
  t.deepEqual(addresses.find('told'), { host: '1.1.1.1', port: 1 })
})

test('a proof fits one key, one direction and one job', (t) => {
  const nonces = { prover: 'aa', verifier: 'bb' }
  const turned = { prover: 'bb', verifier: 'aa' }
  const proof = linkProof('key', nonces, 'id')
  t.true(sameProof(proof, linkProof('key', nonces, 'id')))
  for (const other of [
    linkProof('yek', nonces, 'id'),
    linkProof('key', turned, 'id'),
    linkProof('key', nonces, 'di'),
  ]) {
    t.false(sameProof(proof, other))
  }
  t.false(sameProof(proof, proof.slice(1)))
  const key = preSharedKey('job')
  const job = { name: 'job', userId: 1 }
  t.not(domainProof(key, nonces, job), domainProof(key, nonces, { ...job, userId: 2 }))
  t.not(domainProof(key, nonces, job), domainProof(key, turned, job))
})

test('silence is suspicious after three seconds and deadly after ten', (t) => {
  const verdicts = [0, 2999, 3000, 9999, 10_000].map((silentMs) => judge(1000, 1000 + silentMs))
  t.deepEqual(verdicts, ['alive', 'alive', 'suspect', 'suspect', 'dead'])
})

test('a charge is whole or nothing', (t) => {
  const accounts = new Accounts({ ...defaultLimits, queuePairsPerJob: 2, registeredBytesPerUser: 100 })
  const account = { job: 1, userId: 7 }
  accounts.charge(account, { queuePairs: 1, bytes: 60 })
  t.throws(() => accounts.charge(account, { queuePairs: 1, bytes: 60 }), { message: /60 more registered bytes/ })
  accounts.charge(account, { queuePairs: 1, bytes: 40 })
  t.throws(() => accounts.charge({ job: 2, userId: 7 }, { bytes: 1 }), { message: /the user has 100/ })
  accounts.charge({ job: 2, userId: 8 }, { bytes: 100 })
  accounts.refund(account, { queuePairs: 2, bytes: 100 })
  t.notThrows(() => accounts.charge(account, { queuePairs: 2, bytes: 100 }))
})

test('replies are remembered up to a bound, the oldest answered ones go first', (t) => {
  const memory = new ReplyMemory()
  const reply = { message: Uint8Array.of(1), descriptors: () => [] }
  t.true(memory.begin(0))
  for (let id = 1; id <= 300; id++) {
    t.true(memory.begin(id))
    t.is(memory.repeat(id), undefined)
    memory.end(id, reply)
  }
  t.false(memory.begin(0))
  t.is(memory.repeat(1), undefined)
  t.deepEqual(memory.repeat(300), { message: reply.message, descriptors: [] })
})

test('a number comes back last of all, with another generation, also after its row was freed', (t) => {
  const { nodeFile } = peerGround(t, 'alpha')
  const { queuePairs } = nodeFile
  const issue = (): [number, number] => {
    const row = queuePairs.reserve() ?? 0
    const generation = nodeFile.generationAfter(queuePairs.read(row).generation)
    queuePairs.write(row, { generation })
    return [row, generation]
  }
  const [first, generation] = issue()
  t.is(first, 1)
  queuePairs.free(first)
  t.is(issue()[0], 2)
  queuePairs.free(2)
  const rest = Array.from({ length: queuePairs.rows - 1 }, () => issue())
  t.is(queuePairs.reserve(), undefined)
  t.deepEqual(
    rest.find(([row]) => row === first),
    [first, generation + 1],
  )
  t.is(nodeFile.generationAfter(2 ** 28 - 1), 1)
  t.is(nodeFile.generationAfter(2 ** 20 - 1, 2 ** 20), 1)
})

test('the error log counts, and gives up what was quiet longest', (t) => {
  const { nodeFile } = peerGround(t, 'alpha')
  for (let index = 0; index < 260; index++) {
    nodeFile.errors.observe('timeout', `subject ${index}`, `message ${index}`)
    nodeFile.errors.observe('timeout', 'subject 0', 'again')
  }
  const { offset, rowByteLength, rows } = nodeFileGeometry.sections.errors
  const { memory } = nodeFile.mapping
  const found = Array.from({ length: rows }, (_, row) => errorRow.read(memory, offset + row * rowByteLength))
  t.is(Math.max(...found.map(({ count }) => count)), 261)
  t.true(found.every(({ state }) => state === 1))
})

test('whoever waits looks again at each change, and at the deadline', async (t) => {
  const clock = new ManualClock()
  const condition = new Condition(clock)
  let value: number | undefined
  const found = condition.until(() => value, 1000)
  condition.notify()
  await Promise.resolve()
  value = 7
  condition.notify()
  t.is(await found, 7)
  const late = condition.until(() => undefined, 1000)
  clock.advance(1000)
  t.is(await late, undefined)
  t.is(condition.waiters, 0)
  const thrown = condition.until(() => {
    throw new Error('refused')
  }, 5000)
  await t.throwsAsync(thrown, { message: 'refused' })
})

test('work that takes too long is told by its name, and a failure comes through', async (t) => {
  const clock = new ManualClock()
  const slow = within(new Promise<never>(() => {}), 100, clock, 'waiting for nothing')
  clock.advance(100)
  await t.throwsAsync(slow, { message: /waiting for nothing took longer than 100 ms/ })
  await t.throwsAsync(within(Promise.reject(new Error('no')), 100, clock, 'failing'), { message: 'no' })
  t.is(await within(Promise.resolve(5), 100, clock, 'succeeding'), 5)
})

test('every part of a sharing key tells keys apart', (t) => {
  const key = {
    userId: 1,
    job: 'job',
    provider: 'soft',
    device: 'soft0',
    address: 'a:1',
    nodeId: 'n',
    epoch: 1,
    trafficClass: 0,
    lane: 0,
  }
  const others = Object.entries(key).map(([field, value]) =>
    printSharingKey({ ...key, [field]: typeof value === 'number' ? value + 1 : `${value}x` }),
  )
  t.is(new Set([printSharingKey(key), ...others]).size, 1 + others.length)
})
