/** Two nodes on loopback with fake engines, one job, a client on each. */

import { readNodeFile } from '../../../broker/observe/node-file-reader.js'
import type { Scope } from '../../support/temporary-directory.js'
import { until } from '../../support/until.js'
import { attachedClient } from './client-steps.js'
import type { RawClient } from './raw-client.js'
import { startTestBroker, type TestBroker, type TestBrokerOptions } from './start-test-broker.js'

export interface Side extends TestBroker {
  readonly node: string
  readonly client: RawClient
}

export interface Pair {
  readonly alpha: Side
  readonly beta: Side
}

export interface PairOptions {
  readonly both?: TestBrokerOptions
  readonly alpha?: TestBrokerOptions
  readonly beta?: TestBrokerOptions
  /** Who knows the other's address; default: alpha. */
  readonly knows?: 'alpha' | 'beta' | 'both'
  readonly betaKey?: string
}

export async function startPair(scope: Scope, options: PairOptions = {}): Promise<Pair> {
  const [alpha, beta] = await Promise.all([
    startTestBroker(scope, { node: 'alpha', ...options.both, ...options.alpha }),
    startTestBroker(scope, { node: 'beta', ...options.both, ...options.beta }),
  ])
  const knows = options.knows ?? 'alpha'
  if (knows !== 'beta') alpha.broker.addPeer('beta', `127.0.0.1:${beta.broker.linkPort}`)
  if (knows !== 'alpha') beta.broker.addPeer('alpha', `127.0.0.1:${alpha.broker.linkPort}`)
  const [here, there] = await Promise.all([
    attachedClient(scope, alpha.directory),
    attachedClient(scope, beta.directory, 'job', options.betaKey),
  ])
  return { alpha: { ...alpha, node: 'alpha', client: here }, beta: { ...beta, node: 'beta', client: there } }
}

/** Rows of shared queue pairs in use on a node. */
export const sharedQueuePairs = (side: { readonly directory: string }) =>
  readNodeFile(side.directory).rows('sharedQueuePairs')

export async function untilShared(side: Side, count: number): Promise<void> {
  const there = (): boolean => sharedQueuePairs(side).length === count
  await until(there, { timeoutMs: 10_000, what: `${count} shared queue pairs on ${side.node}` })
}

/** The side whose broker opens lanes: that with the lower node id. */
export function openerOf({ alpha, beta }: Pair): { readonly opener: Side; readonly other: Side } {
  const idOf = (side: Side): string => readNodeFile(side.directory).header.nodeId
  return idOf(alpha) < idOf(beta) ? { opener: alpha, other: beta } : { opener: beta, other: alpha }
}
