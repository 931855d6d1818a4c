import { deliverScenario } from './deliver-scene.js'
import type { Exploration } from './exploration.js'
import { loadOnce } from './load.js'

function deliver(name: string, messages: number, deaths: number, isLong = false, hasEntries = false): Exploration {
  const promise = 'each message is delivered once, and its sender is told after that (I9, I14, I15, W5)'
  const scenario = async (fullName: string) =>
    deliverScenario(await loadOnce(), fullName, { messages, hasEntries }, { crashes: { broker: deaths } })
  return { scene: 'deliver', promise, name, isLong, scenario }
}

export const deliverExplorations: readonly Exploration[] = [
  deliver('1 message, broker dies 3 times', 1, 3),
  deliver('2 messages, broker dies twice', 2, 2),
  deliver('3 messages, broker dies twice', 3, 2, true),
  deliver('2 messages, broker dies 3 times', 2, 3, true),
  deliver('2 messages straight to their receives, broker dies twice', 2, 2, false, true),
  deliver('3 messages straight to their receives, broker dies twice', 3, 2, true, true),
]
