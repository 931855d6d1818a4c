import test from 'ava'
import fc from 'fast-check'
import { CompletionBatch, WorkRequestBatch } from '../../../broker/provider/provider.js'
import { SoftCompletionQueue } from '../../../broker/provider/soft-completion-queue.js'
import { Ledger } from '../../../broker/provider/soft-ledger.js'
import { status } from '../../../protocol/statuses.js'

/** A ledger in which every slot has its own id. */
function ledgerOf(depth: number, firstId: number): Ledger {
  const ledger = new Ledger(depth, 1)
  const batch = new WorkRequestBatch(1)
  for (let slot = 0; slot <= ledger.mask; slot++) {
    batch.clear()
    batch.begin(firstId + slot, 0, 0, 0, 0, 0)
    ledger.write(slot, batch, 0, 0)
  }
  return ledger
}

function poll(queue: SoftCompletionQueue, most = 1000): number[] {
  const batch = new CompletionBatch(most)
  queue.poll(batch)
  return Array.from(batch.idLow.subarray(0, batch.count))
}

test('completions come out in the order they went in, in batches of any size', (t) => {
  const steps = fc.array(fc.record({ push: fc.nat(5), poll: fc.nat(7) }), { maxLength: 200 })
  const property = fc.property(fc.integer({ min: 1, max: 20 }), steps, (capacity, moves) => {
    const overruns: number[] = []
    const queue = new SoftCompletionQueue(9, capacity, false, (handle) => overruns.push(handle))
    const ledger = ledgerOf(1024, 0)
    const model: number[] = []
    let next = 0
    let isLost = false
    for (const move of moves) {
      for (let index = 0; index < move.push; index++, next++) {
        if (model.length < capacity) model.push(next & ledger.mask)
        else isLost = true
        queue.push(ledger, next, status.success, 0, 1, 0)
      }
      t.deepEqual(poll(queue, move.poll), model.splice(0, move.poll))
    }
    t.is(overruns.length > 0, isLost)
    t.is(queue.isEmpty, model.length === 0)
  })
  fc.assert(property)
})

test('polling retires the request and all before it', (t) => {
  const queue = new SoftCompletionQueue(1, 8, false, () => t.fail())
  const ledger = ledgerOf(4, 0)
  ledger.posted = 4
  t.true(ledger.isFull)
  queue.push(ledger, 2, status.success, 0, 1, 0)
  t.true(ledger.isFull)
  t.deepEqual(poll(queue), [2])
  t.is(ledger.retired, 3)
  t.false(ledger.isFull)
})

test('positions retire over the wrap of 32 bits', (t) => {
  const ledger = new Ledger(8, 1)
  ledger.posted = -0x80000000 + 2
  ledger.retired = 0x7ffffffe
  ledger.retire(0x7fffffff)
  t.is(ledger.retired, -0x80000000)
  ledger.retire(0x7ffffffe)
  t.is(ledger.retired, -0x80000000, 'never backwards')
  t.false(ledger.isFull)
})

test('a purge takes one queue pair out and leaves the others in order', (t) => {
  const property = fc.property(fc.array(fc.boolean(), { maxLength: 60 }), fc.nat(63), (owners, offset) => {
    const queue = new SoftCompletionQueue(1, 64, false, () => t.fail())
    const ledgers = [ledgerOf(64, 0), ledgerOf(64, 1000)] as const
    for (let index = 0; index < offset; index++) {
      queue.push(ledgers[0], index, status.success, 0, 1, 0)
      poll(queue)
    }
    for (const [index, isFirst] of owners.entries()) {
      queue.push(ledgers[isFirst ? 0 : 1], index, status.success, 0, 1, 0)
    }
    queue.purge(ledgers[0])
    t.deepEqual(
      poll(queue),
      owners.flatMap((isFirst, index) => (isFirst ? [] : [1000 + index])),
    )
  })
  fc.assert(property)
})

test('an error completion says id, status and queue pair; the rest is poisoned on request', (t) => {
  for (const poison of [false, true]) {
    const queue = new SoftCompletionQueue(1, 4, poison, () => t.fail())
    queue.pushError(ledgerOf(4, 70), 1, status.flushed, 5)
    const batch = new CompletionBatch(4)
    queue.poll(batch)
    t.deepEqual([batch.idLow[0], batch.status[0], batch.queuePair[0]], [71, status.flushed, 5])
    t.is(batch.opcode[0] !== 0, poison)
    t.is(batch.byteLength[0] !== 0, poison)
  }
})

test('an overrun ordered by a hook loses one completion and is told once until the queue was emptied', (t) => {
  let told = 0
  const queue = new SoftCompletionQueue(1, 4, false, () => told++)
  const ledger = ledgerOf(8, 0)
  for (let position = 0; position < 3; position++) {
    queue.overrunNext = position < 2
    queue.push(ledger, position, status.success, 0, 1, 0)
  }
  t.is(told, 1)
  t.deepEqual(poll(queue), [2])
  queue.overrunNext = true
  queue.push(ledger, 3, status.success, 0, 1, 0)
  t.is(told, 2)
})
