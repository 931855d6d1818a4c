/**
 * The control plane's share of the counters in the node file. Each counter has one writer: the names below are counted here, all others
 * by the engine's thread.
 */
import { type CounterName, counterIndex, nodeFileGeometry } from '../../protocol/node-file.js'
import type { Memory } from '../../shm/memory.js'

export const controlPlaneCounters = [
  'shared-queue-pairs-created',
  'shared-queue-pairs-reaped',
  'sessions-attached',
  'sessions-died',
  'locks-reclaimed',
  'slots-swept',
  'control-requests',
  'control-refusals',
  'link-connects',
  'link-failures',
  'link-refusals',
] as const satisfies readonly CounterName[]

export type ControlPlaneCounter = (typeof controlPlaneCounters)[number]

export class Counters {
  readonly #values: Float64Array

  constructor(memory: Memory) {
    this.#values = memory.f64.subarray(nodeFileGeometry.countersOffset / 8)
  }

  add(name: ControlPlaneCounter, amount = 1): void {
    const index = counterIndex[name]
    this.#values[index] = (this.#values[index] ?? 0) + amount
  }

  /** Any counter, also those that the engine writes. */
  value(name: CounterName): number {
    return this.#values[counterIndex[name]] ?? 0
  }
}
