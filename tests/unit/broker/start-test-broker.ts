/** A broker in this process, on a directory of its own, with a fake engine, gone with the test. */
import { existsSync } from 'node:fs'
import { type BrokerOptions, type RunningBroker, runBroker } from '../../../broker/run.js'
import type { LaneParameters } from '../../../protocol/link.js'
import { type Scope, temporaryDirectory } from '../../support/temporary-directory.js'
import { type FakeEngine, fakeStart } from './fake-engine.js'

export interface TestBroker {
  readonly broker: RunningBroker
  readonly engine: FakeEngine
  readonly directory: string
  /** What it logged, as JSON lines. */
  readonly log: string[]
}

export type TestBrokerOptions = Partial<BrokerOptions> & { readonly parameters?: Partial<LaneParameters> }

export async function startTestBroker(scope: Scope, options: TestBrokerOptions = {}): Promise<TestBroker> {
  const directory = options.runtimeDirectory ?? `${temporaryDirectory(scope)}/run`
  const { parameters, ...given } = options
  const fake = fakeStart(parameters)
  const log: string[] = []
  const broker = await runBroker({
    node: 'alpha',
    clusterKey: 'cluster secret',
    startEngine: fake.start,
    logStream: { write: (line: string) => void log.push(line) },
    ...given,
    runtimeDirectory: directory,
  })
  scope.teardown(() => broker.stop())
  return { broker, engine: fake.engine(), directory, log }
}

export const exists = (path: string): boolean => existsSync(path)
