/** Private mapped memory of this provider: whatever the kernel is given by address must not be garbage collected. */
import { mapAnonymous, munmap, PAGE_BYTES, replaceWithZeroes, view } from '../../shm/libc.js'
import { Memory } from '../../shm/memory.js'

type Range = { address: number; byteLength: number }

/** Address ranges are given back only when no view of them can be reached any more: a straggler then reads zeroes. */
const abandoned = new FinalizationRegistry<Range>(({ address, byteLength }) => munmap(address, byteLength))

export class Arena {
  readonly memory: Memory
  #closed = false

  /** Zeroed, and physically there only where it is touched. */
  constructor(byteLength: number) {
    const whole = Math.ceil(byteLength / PAGE_BYTES) * PAGE_BYTES
    const address = mapAnonymous(whole)
    this.memory = new Memory(view(address, whole), address)
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    const range = { address: this.memory.address, byteLength: this.memory.byteLength }
    replaceWithZeroes(range.address, range.byteLength)
    abandoned.register(this.memory.buffer, range)
  }
}
