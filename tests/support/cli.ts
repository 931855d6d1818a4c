/** The command line as users run it. */
import { fileURLToPath } from 'node:url'
import { type Ended, runProcess, type SpawnOptions, startProcess, type TestProcess } from './processes.js'
import { type Scope, temporaryDirectory } from './temporary-directory.js'

export const repositoryDirectory = fileURLToPath(new URL('../../', import.meta.url))
export const binPath = fileURLToPath(new URL('../../broker/bin.js', import.meta.url))

/** Nothing of the caller's surroundings may decide where a test's broker lives or which key it has. */
const cleanEnvironment = {
  SHARED_VERBS_DIR: undefined,
  XDG_RUNTIME_DIR: undefined,
  SHARED_VERBS_CLUSTER_KEY: undefined,
  SHARED_VERBS_CLUSTER_KEY_FILE: undefined,
}

export function startCli(scope: Scope, commandArguments: readonly string[], options: SpawnOptions = {}): TestProcess {
  return startProcess(scope, process.execPath, [binPath, ...commandArguments], {
    ...options,
    env: { ...cleanEnvironment, ...options.env },
  })
}

export function runCli(
  scope: Scope,
  commandArguments: readonly string[],
  options: SpawnOptions & { readonly timeoutMs?: number } = {},
): Promise<Ended> {
  return runProcess(scope, process.execPath, [binPath, ...commandArguments], {
    ...options,
    env: { ...cleanEnvironment, ...options.env },
  })
}

export interface StartedBroker {
  readonly runtimeDirectory: string
  readonly process: TestProcess
  readonly started: { readonly node: string; readonly processId: number; readonly linkAddress: string }
}

/** A broker in the foreground, ready. Ended with the test. */
export async function startBroker(scope: Scope, ...options: readonly string[]): Promise<StartedBroker> {
  const runtimeDirectory = `${temporaryDirectory(scope)}/run`
  const broker = startCli(scope, [
    'start',
    '--json',
    ...['--runtime-dir', runtimeDirectory, '--host', '127.0.0.1', '--port', '0'],
    ...options,
  ])
  const [line] = await broker.printed(/^\{"event":"started".*$/m)
  return { runtimeDirectory, process: broker, started: JSON.parse(line) as StartedBroker['started'] }
}
