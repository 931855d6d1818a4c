import test from 'ava'
import {
  brokerPage,
  brokerPageGeometry,
  brokerState,
  brokerStateNames,
  nodeNameRow,
} from '../../../protocol/broker-page.js'
import { limits } from '../../../protocol/limits.js'

test('the names of nodes follow the page, one for each peer and this node, and each holds the longest name', (t) => {
  t.is(brokerPageGeometry.nodeNamesOffset, brokerPage.byteLength)
  t.is(brokerPageGeometry.byteLength, brokerPage.byteLength + limits.peers * nodeNameRow.byteLength)
  t.is(nodeNameRow.byteLength, limits.nameByteLength)
  t.is(brokerPageGeometry.nodeNamesOffset % 64, 0)
})

test('the word that every post reads has a line of its own', (t) => {
  const line = Math.floor(brokerPage.offset.sleeping / 64)
  const others = brokerPage.fields.filter((field) => !['sleeping', 'sleepingEnd'].includes(field.name))
  for (const field of others) {
    const first = Math.floor(field.offset / 64)
    const last = Math.floor((field.offset + Math.max(1, field.byteLength) - 1) / 64)
    t.true(last < line || first > line, field.name)
  }
})

test('every state of a broker has its name', (t) => {
  for (const [name, number] of Object.entries(brokerState))
    t.is<string | undefined, string>(brokerStateNames[number], name)
  t.deepEqual(Object.keys(brokerState), [...brokerStateNames])
})
