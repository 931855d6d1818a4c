/** What an opened verbs device counts: its own calls here, and what only the device knows. */
import type { ProviderCounters } from './provider.js'
import { receiverNotReadyCount, type VerbsDeviceEntry } from './verbs-inventory.js'

export class VerbsCounters implements ProviderCounters {
  queuePairs = 0
  queuePairsCreated = 0
  memoryRegions = 0
  messagesSent = 0
  bytesSent = 0
  bytesReceived = 0
  systemCalls = 0
  readonly #entry: VerbsDeviceEntry
  readonly #notReadyBefore: number

  constructor(entry: VerbsDeviceEntry) {
    this.#entry = entry
    this.#notReadyBefore = receiverNotReadyCount(entry.name, entry.port)
  }

  /** The device counts them, for all its users together: an upper bound of ours. */
  get receiverNotReady(): number {
    return Math.max(0, receiverNotReadyCount(this.#entry.name, this.#entry.port) - this.#notReadyBefore)
  }
}
