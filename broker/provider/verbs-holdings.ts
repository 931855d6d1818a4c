/**
 * Protection domains, registered memory and completion queues of a verbs device: what lives as long as its users want, although the
 * device may go and come back. Each is made anew in the device that came back; its users notice nothing but other keys.
 *
 *   device there   calls go to the library
 *   device gone    what is given up is only struck out here: the kernel has dropped it with the device
 */
import type { Done, MemoryRights, ProtectionDomain, ProviderCounters, ProviderFailure } from './provider.js'
import { ibvCompletionQueue, ibvMemoryRegion } from './verbs-abi.js'
import { accessOf, memlockHint, refuse, refuseUnknown } from './verbs-checks.js'
import { fieldsOf, type VerbsContext } from './verbs-context.js'
import { lastErrorNumber } from './verbs-library.js'
import { VerbsCompletionQueue, VerbsMemory } from './verbs-objects.js'
import { failureOf } from './verbs-status.js'

/** The kernel pins page by page: what is longer is registered on another thread, so that the caller's goes on. */
const ASIDE_BYTES = 64 << 20

export class VerbsHoldings {
  /** Registrations under way on another thread: the device must not be closed under them. */
  pending = 0
  /** Start of each memory by its local key. */
  readonly starts = new Map<number, number>()
  readonly queues = new Map<number, VerbsCompletionQueue>()
  /** Pointers of protection domains by handle. */
  readonly #domains = new Map<number, number>()
  readonly #memories = new Set<VerbsMemory>()
  readonly #counters: ProviderCounters
  #context: VerbsContext | null
  #lastHandle = 0

  constructor(context: VerbsContext, counters: ProviderCounters) {
    this.#context = context
    this.#counters = counters
  }

  domainPointer(domain: ProtectionDomain): number | undefined {
    return this.#domains.get(domain.handle)
  }

  allocateDomain(context: VerbsContext, done: Done<ProtectionDomain>): void {
    const pointer = context.allocateDomain()
    if (pointer === 0) {
      done(failureOf('allocating a protection domain', lastErrorNumber()), null)
      return
    }
    const handle = ++this.#lastHandle
    this.#domains.set(handle, pointer)
    done(null, { handle })
  }

  /** `isUsed`: queue pairs are left in it. */
  freeDomain(domain: ProtectionDomain, isUsed: boolean, done: Done<true>): void {
    const pointer = this.#domains.get(domain.handle)
    if (pointer === undefined) {
      refuseUnknown(done, 'protection domain', domain.handle)
      return
    }
    const attempted = `freeing protection domain ${domain.handle}`
    if (isUsed || [...this.#memories].some((memory) => memory.domain === domain.handle)) {
      refuse(done, 'invalid', `${attempted}: it still has memory or queue pairs`)
      return
    }
    const result = this.#context?.library.freeDomain(pointer) ?? 0
    if (result !== 0) {
      done(failureOf(attempted, result), null)
      return
    }
    this.#domains.delete(domain.handle)
    done(null, true)
  }

  registerMemory(
    context: VerbsContext,
    domain: ProtectionDomain,
    address: number,
    byteLength: number,
    rights: MemoryRights,
    done: Done<VerbsMemory>,
  ): void {
    const attempted = `registering ${byteLength} bytes`
    if (!this.#domains.has(domain.handle)) {
      refuseUnknown(done, 'protection domain', domain.handle)
      return
    }
    if (!Number.isSafeInteger(address) || address <= 0 || !Number.isSafeInteger(byteLength) || byteLength <= 0) {
      refuse(done, 'invalid', `${attempted} at address ${address}`)
      return
    }
    if (rights.remoteWrite && !rights.localWrite) {
      refuse(done, 'invalid', `${attempted} with remote but without local write right`)
      return
    }
    const memory = new VerbsMemory(domain.handle, address, byteLength, accessOf(rights))
    // Before the device knows it: its domain must stay.
    this.#memories.add(memory)
    const finish = (failure: ProviderFailure | null): void => {
      if (failure === null) this.#counters.memoryRegions++
      else this.#memories.delete(memory)
      done(failure, failure === null ? memory : null)
    }
    if (byteLength < ASIDE_BYTES) finish(this.#enter(context, memory))
    else this.#enterAside(context, memory, finish)
  }

  /** Makes it known to the device: from now on it has keys. */
  #enter(context: VerbsContext, memory: VerbsMemory): ProviderFailure | null {
    const pointer = context.library.registerMemory(...this.#registration(memory))
    if (pointer !== 0) {
      this.#adopt(memory, pointer)
      return null
    }
    const { byteLength } = memory
    return failureOf(`registering ${byteLength} bytes`, lastErrorNumber(), memlockHint(byteLength))
  }

  #enterAside(context: VerbsContext, memory: VerbsMemory, finish: (failure: ProviderFailure | null) => void): void {
    this.pending++
    context.library.registerMemoryAside(this.#registration(memory), (pointer) => {
      this.pending--
      if (pointer !== 0) this.#adopt(memory, pointer)
      // The error number stayed on the other thread: asked again here, the call says it.
      finish(pointer === 0 ? this.#enter(context, memory) : null)
    })
  }

  #registration({ domain, address, byteLength, access }: VerbsMemory): [number, number, number, number, number] {
    return [this.#domains.get(domain)!, address, byteLength, 0, access]
  }

  #adopt(memory: VerbsMemory, pointer: number): void {
    const fields = fieldsOf(pointer, ibvMemoryRegion.byteLength)
    memory.pointer = pointer
    memory.localKey = fields.getUint32(ibvMemoryRegion.lkey, true)
    memory.remoteKey = fields.getUint32(ibvMemoryRegion.rkey, true)
    this.starts.set(memory.localKey, memory.address)
  }

  deregisterMemory(memory: VerbsMemory, done: Done<true>): void {
    if (!this.#memories.has(memory)) {
      refuseUnknown(done, 'memory with local key', memory.localKey)
      return
    }
    const result = this.#context?.library.deregisterMemory(memory.pointer) ?? 0
    if (result !== 0) {
      done(failureOf(`deregistering ${memory.byteLength} bytes`, result), null)
      return
    }
    this.#memories.delete(memory)
    this.starts.delete(memory.localKey)
    this.#counters.memoryRegions--
    done(null, true)
  }

  createQueue(context: VerbsContext, capacity: number, done: Done<VerbsCompletionQueue>): void {
    const handle = ++this.#lastHandle
    const pointer = context.createQueue(capacity, handle)
    if (pointer === 0) {
      done(failureOf(`creating a completion queue of ${capacity}`, lastErrorNumber()), null)
      return
    }
    const actual = fieldsOf(pointer, ibvCompletionQueue.byteLength).getInt32(ibvCompletionQueue.cqe, true)
    const queue = new VerbsCompletionQueue(handle, pointer, actual)
    this.queues.set(handle, queue)
    done(null, queue)
  }

  destroyQueue(queue: VerbsCompletionQueue, done: Done<true>): void {
    const attempted = `destroying completion queue ${queue.handle}`
    if (queue.users > 0) {
      refuse(done, 'invalid', `${attempted}: ${queue.users} queues complete there`)
      return
    }
    const result = this.#context?.library.destroyQueue(queue.pointer) ?? 0
    if (result !== 0) {
      done(failureOf(attempted, result), null)
      return
    }
    this.queues.delete(queue.handle)
    done(null, true)
  }

  /** The device goes: everything is given back to the kernel, and kept in mind. After all queue pairs. */
  leave(): void {
    if (this.#context === null) return
    const { library } = this.#context
    for (const memory of this.#memories) library.deregisterMemory(memory.pointer)
    for (const queue of this.queues.values()) {
      library.destroyQueue(queue.pointer)
      queue.forgetDevice()
    }
    for (const pointer of this.#domains.values()) library.freeDomain(pointer)
    this.starts.clear()
    this.#context = null
  }

  /** Makes all of it in the device that came back; a failure leaves nothing there. */
  enter(context: VerbsContext): ProviderFailure | null {
    const undo: (() => void)[] = []
    const failure = this.#enterAll(context, undo)
    if (failure === null) this.#context = context
    else for (const step of undo.reverse()) step()
    return failure
  }

  #enterAll(context: VerbsContext, undo: (() => void)[]): ProviderFailure | null {
    const { library } = context
    for (const handle of this.#domains.keys()) {
      const pointer = context.allocateDomain()
      if (pointer === 0) return failureOf('allocating a protection domain again', lastErrorNumber())
      this.#domains.set(handle, pointer)
      undo.push(() => library.freeDomain(pointer))
    }
    for (const queue of this.queues.values()) {
      const pointer = context.createQueue(queue.capacity, queue.handle)
      if (pointer === 0) return failureOf('creating a completion queue again', lastErrorNumber())
      queue.pointer = pointer
      undo.push(() => library.destroyQueue(pointer))
    }
    for (const memory of this.#memories) {
      const failure = this.#enter(context, memory)
      if (failure !== null) return failure
      undo.push(() => {
        this.starts.delete(memory.localKey)
        library.deregisterMemory(memory.pointer)
      })
    }
    return null
  }
}
