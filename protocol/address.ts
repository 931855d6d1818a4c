/** Addresses and handles: plain JSON that applications pass around by whatever means they have. */

/** Where a queue pair can be reached. A generation that is not the living one is refused as stale. */
export interface QueuePairAddress {
  readonly node: string
  readonly number: number
  readonly generation: number
}

export interface ServiceAddress {
  readonly node: string
  readonly service: string
}

/** What another process of the same job on the same node needs to open an object. */
export interface ObjectHandle {
  readonly kind: 'queue-pair' | 'completion-queue' | 'memory-region'
  readonly number: number
  readonly generation: number
}

const NODE_NAME = /^[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$/

/** Node names are host-name like: letters, digits, dots, dashes, underscores, at most 64. */
export const isNodeName = (name: unknown): name is string => typeof name === 'string' && NODE_NAME.test(name)
/** Job and service names: printable, no spaces, at most 64 bytes. */
export const isName = (name: unknown): name is string => typeof name === 'string' && /^[\x21-\x7e]{1,64}$/.test(name)
