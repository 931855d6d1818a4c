import type { Bounds } from '../support/explorer.js'
import type { Exploration } from './exploration.js'
import { loadOnce } from './load.js'
import { type WireOptions, wireScenario } from './wire-scene.js'

function wire(promise: string, name: string, options: WireOptions, bounds: Bounds, isLong = false): Exploration {
  const scenario = async (fullName: string) => wireScenario(await loadOnce(), fullName, options, bounds)
  return { scene: 'wire', promise, name, isLong, scenario }
}
const LONG = true

const ONCE = 'messages arrive once and in order, and verdicts are true, whatever is lost (I9, I14, I15, I17, I19)'
const CLOSED = 'what is flushed never arrives, also if it left (I9, I14, I15, I16, I17, I19)'
const GONE = 'unknown is only what had left to a peer that is gone (I15, I16, I17)'

const all = { sender: 2, receiver: 2, loss: 2, 'late-loss': 2 }

export const wireExplorations: readonly Exploration[] = [
  wire(ONCE, '2 messages, 2 deaths or losses', { messages: 2 }, { crashes: all, crashesInAll: 2 }),
  wire(ONCE, '1 message, 3 deaths or losses', { messages: 1 }, { crashes: all, crashesInAll: 3 }),
  wire(
    CLOSED,
    '2 messages, closed, the sender dies, what was in flight is late',
    { messages: 2 },
    { crashes: { sender: 1, 'late-loss': 1, close: 1 } },
  ),
  wire(
    GONE,
    '2 messages, the receiver gone, the sender dies',
    { messages: 2, peerReturns: false },
    { crashes: { receiver: 1, sender: 1, 'late-loss': 1 } },
  ),
  wire(
    CLOSED,
    '2 messages, closed, 1 death or loss',
    { messages: 2 },
    { crashes: { ...all, close: 1 }, crashesInAll: 2 },
    LONG,
  ),
  wire(ONCE, '3 messages, 2 deaths or losses', { messages: 3 }, { crashes: all, crashesInAll: 2 }, LONG),
  wire(ONCE, '2 messages, 3 deaths or losses', { messages: 2 }, { crashes: all, crashesInAll: 3 }, LONG),
  wire(
    CLOSED,
    '1 message, closed, 3 deaths or losses',
    { messages: 1 },
    { crashes: { ...all, close: 1 }, crashesInAll: 4 },
    LONG,
  ),
]
