import test from 'ava'
import { deliverScenario } from './deliver-scene.js'
import { loadExplored } from './load.js'
import { holds, isLong } from './verify.js'

const code = await loadExplored()

function deliverTest(name: string, messages: number, deaths: number): void {
  test(`each message is delivered once, and its sender is told after that (I9, I14, I15, W5): ${name}`, (t) => {
    t.timeout(600_000)
    holds(t, deliverScenario(code, name, { messages }, { crashes: { broker: deaths } }))
  })
}

deliverTest('1 message, broker dies 3 times', 1, 3)
deliverTest('2 messages, broker dies twice', 2, 2)
if (isLong) deliverTest('3 messages, broker dies twice', 3, 2)
