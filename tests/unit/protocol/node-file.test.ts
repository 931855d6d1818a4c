import test from 'ava'
import { limits } from '../../../protocol/limits.js'
import {
  completionQueueRow,
  counterIndex,
  counterNames,
  errorRow,
  eventRow,
  jobRow,
  laneStateNames,
  memberRow,
  memberState,
  memberStateNames,
  type NodeFileSection,
  nodeFileGeometry,
  nodeFileHeader,
  nodeFileLayouts,
  peerRow,
  peerStateNames,
  queuePairRow,
  regionRow,
  sharedQueuePairRow,
} from '../../../protocol/node-file.js'
import { Memory } from '../../../shm/memory.js'

const rows: Readonly<Record<NodeFileSection, (typeof nodeFileLayouts)[number]>> = {
  jobs: jobRow,
  members: memberRow,
  queuePairs: queuePairRow,
  completionQueues: completionQueueRow,
  regions: regionRow,
  peers: peerRow,
  sharedQueuePairs: sharedQueuePairRow,
  errors: errorRow,
  events: eventRow,
}
const sections = Object.entries(nodeFileGeometry.sections).map(([name, of]) => ({
  name: name as NodeFileSection,
  ...of,
}))

test('sections follow header and counters without overlap, inside the file', (t) => {
  t.is(nodeFileGeometry.countersOffset, nodeFileHeader.byteLength)
  let end = nodeFileGeometry.countersOffset + counterNames.length * 8
  for (const { name, offset, rowByteLength, rows: count } of sections) {
    t.true(offset >= end, `${name} overlaps`)
    t.is(offset % 64, 0, name)
    end = offset + rowByteLength * count
  }
  t.true(end <= nodeFileGeometry.byteLength)
  t.is(nodeFileGeometry.byteLength % 4096, 0)
  t.true(nodeFileGeometry.byteLength <= 8 << 20)
})

test('each section has the rows of its layout, as many as the limits allow', (t) => {
  t.is(sections.length, Object.keys(rows).length)
  for (const { name, rowByteLength } of sections) t.is(rowByteLength, rows[name].byteLength, name)
  const count = (name: NodeFileSection): number => nodeFileGeometry.sections[name].rows
  t.is(count('members'), limits.members + 1, 'member numbers begin at 1, 0 is the broker')
  t.deepEqual(
    [count('jobs'), count('queuePairs'), count('completionQueues'), count('regions'), count('peers')],
    [limits.jobs, limits.queuePairs, limits.completionQueues, limits.regions, limits.peers],
  )
  t.is(count('sharedQueuePairs'), limits.sharedQueuePairs)
})

test('8-byte columns lie on 8 bytes in every row', (t) => {
  t.is(nodeFileGeometry.countersOffset % 8, 0)
  for (const { name, offset, rowByteLength } of sections) {
    t.is(offset % 8, 0, name)
    t.is(rowByteLength % 8, 0, name)
    for (const field of rows[name].fields) {
      if (field.kind === 'f64') t.is(field.offset % 8, 0, `${name}.${field.name}`)
    }
  }
})

test('a row is free while its first word is 0', (t) => {
  for (const [name, row] of Object.entries(rows)) t.is((row.offset as { state: number }).state, 0, name)
  t.is(memberState.free, 0)
  t.deepEqual([memberStateNames[0], peerStateNames[0], laneStateNames[0]], ['free', 'free', 'free'])
  for (const [name, number] of Object.entries(memberState))
    t.is<string | undefined, string>(memberStateNames[number], name)
})

test('every layout of the file is written and read back', (t) => {
  for (const row of nodeFileLayouts) {
    const memory = new Memory(new ArrayBuffer(row.byteLength + ((8 - (row.byteLength % 8)) % 8)))
    const values: Record<string, number | string> = {}
    row.fields.forEach((field, index) => {
      if (field.kind === 'text') values[field.name] = `t${index}`
      else if (field.kind !== 'gap' && field.kind !== 'line') values[field.name] = index + 1
    })
    row.write(memory, 0, values as never)
    t.deepEqual(row.read(memory, 0) as unknown, values, row.name)
  }
})

test('counters have names of their own, each its place', (t) => {
  t.is(new Set(counterNames).size, counterNames.length)
  counterNames.forEach((name, index) => {
    t.regex(name, /^[a-z]+(-[a-z]+)*$/)
    t.is(counterIndex[name], index)
  })
})
