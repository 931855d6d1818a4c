/** The parts of the verbs provider that need no device. */
import test from 'ava'
import { ibvQueuePairAttributes } from '../../../broker/provider/verbs-abi.js'
import { chooseGid, gidBytes, gidOfHost, gidText, isGid } from '../../../broker/provider/verbs-gid.js'
import { VerbsLedger } from '../../../broker/provider/verbs-ledger.js'
import { failureOf, statusOf } from '../../../broker/provider/verbs-status.js'
import { mtuBytes, mtuCode, rnrTimerCode, toReadyToReceive } from '../../../broker/provider/verbs-transitions.js'
import { statusName } from '../../../protocol/statuses.js'
import { Memory } from '../../../shm/memory.js'

test('a completion retires its request and all before it, across the wrap', (t) => {
  const ledger = new VerbsLedger(3)
  for (let round = 0; round < 1000; round++) {
    const ordinals = [0, 1, 2].map((index) => ledger.push(round, index, index))
    t.is(ledger.room, 0)
    t.is(ledger.retire(ordinals[1]! + 7), -1)
    const at = ledger.retire(ordinals[1]! >>> 0)
    t.is(ledger.idHigh[at], 1)
    t.is(ledger.retire(ordinals[0]!), -1, 'retired before')
    t.is(ledger.room, 2)
    t.not(ledger.retire(ordinals[2]!), -1)
  }
  ledger.push(1, 1, 1)
  ledger.drop(1)
  t.is(ledger.room, 3)
})

const link = { index: 0, value: 'fe80:0000:0000:0000:0000:0000:0000:0001', isRouted: true }
const older = { index: 1, value: gidOfHost('10.0.0.1'), isRouted: false }
const first = { index: 2, value: gidOfHost('10.0.0.1'), isRouted: true }
const second = { index: 3, value: gidOfHost('10.0.0.2'), isRouted: true }

test('peers reach an Ethernet port by its routed address: the asked one, else an IPv4 one, else any', (t) => {
  const all = [link, older, first, second]
  t.is(chooseGid(all, 'ethernet', '10.0.0.2'), second)
  t.is(chooseGid(all, 'ethernet', '127.0.0.1'), first)
  t.is(chooseGid([link], 'ethernet', '127.0.0.1'), link)
  t.is(chooseGid([older], 'ethernet', '10.0.0.1'), undefined)
  t.is(chooseGid(all, 'infiniband', '10.0.0.2'), link)
  t.is(chooseGid(all, 'ethernet', '10.0.0.2', 1), older, 'the row that was chosen')
  t.is(chooseGid(all, 'ethernet', '10.0.0.2', 9), undefined)
})

test('addresses are written as the kernel writes them', (t) => {
  t.is(gidOfHost('10.77.0.255'), '0000:0000:0000:0000:0000:ffff:0a4d:00ff')
  t.is(gidText(gidBytes(link.value)), link.value)
  t.true(isGid(link.value))
  t.false(isGid('fe80::1'))
})

test('codes of packet lengths and waiting times are the next that fit', (t) => {
  t.deepEqual([100, 256, 1023, 1024, 4096, 9000].map(mtuCode), [1, 1, 2, 3, 5, 5])
  t.deepEqual([1, 3, 5].map(mtuBytes), [256, 1024, 4096])
  // 1 = 0.01 ms, 12 = 0.64 ms, 31 = 491.52 ms, 0 = 655.36 ms
  t.deepEqual([0, 0.01, 0.64, 491.52, 655].map(rnrTimerCode), [1, 1, 12, 31, 0])
})

test('statuses and error numbers have the names of the contract', (t) => {
  t.deepEqual(
    [0, 1, 2, 4, 5, 9, 10, 11, 12, 13, 19, 77].map((value) => statusName(statusOf(value))),
    [
      'success',
      'local-length-error',
      'local-qp-error',
      'local-protection-error',
      'flushed',
      'remote-invalid-request',
      'remote-access-error',
      'remote-operation-error',
      'retry-exceeded',
      'rnr-retry-exceeded',
      'device-removed',
      'general-error',
    ],
  )
  t.is(failureOf('trying', -12).code, 'no-memory')
  t.is(failureOf('trying', 13).code, 'permission')
  t.regex(failureOf('trying', 5, 'a hint').message, /^device-gone: trying: EIO; a hint$/)
})

test('what is chosen of a path goes into the attributes of its queue pairs; a class that is asked for comes first', (t) => {
  const memory = new Memory(new ArrayBuffer(256))
  const remote = { number: 5, packetSequence: 9, path: { gid: first.value, lid: 0, mtu: 4096 } }
  const attributes = {
    readsInitiated: 4,
    readsAccepted: 4,
    pathMtu: 4096,
    timeoutExponent: 14,
    retryCount: 6,
    rnrRetryCount: 7,
    rnrTimerMs: 1,
    trafficClass: 0,
  }
  const path = { port: 2, linkLayer: 'ethernet', gidIndex: 3, mtu: 1024, trafficClass: 32, serviceLevel: 5 } as const
  const at = (name: keyof typeof ibvQueuePairAttributes): number => memory.u8[Number(ibvQueuePairAttributes[name])]!
  toReadyToReceive(remote, attributes, path)(memory, 0)
  t.is(at('ah_attr.grh.traffic_class'), 32)
  t.is(at('ah_attr.sl'), 5)
  t.is(at('ah_attr.port_num'), 2)
  t.is(at('ah_attr.grh.sgid_index'), 3)
  t.is(memory.view.getUint32(Number(ibvQueuePairAttributes.path_mtu), true), mtuCode(1024))
  toReadyToReceive(remote, { ...attributes, trafficClass: 8 }, path)(memory, 0)
  t.is(at('ah_attr.grh.traffic_class'), 8)
})
