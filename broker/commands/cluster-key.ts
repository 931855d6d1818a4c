/** The secret that brokers of a cluster share: from a file or the environment, never from argv, where everybody could read it. */
import { readFileSync, statSync } from 'node:fs'
import { SharedVerbsError } from '../../protocol/errors.js'
import type { Environment } from '../../protocol/paths.js'

const KEY_FILE = 'SHARED_VERBS_CLUSTER_KEY_FILE'
const KEY = 'SHARED_VERBS_CLUSTER_KEY'

/** Empty when there is none: such a broker has no peers. */
export function readClusterKey(option: string | undefined, environment: Environment): string {
  const path = option ?? environment[KEY_FILE]
  return path === undefined || path === '' ? (environment[KEY] ?? '') : readKeyFile(path)
}

function readKeyFile(path: string): string {
  let text: string
  try {
    if ((statSync(path).mode & 0o007) !== 0) {
      throw new SharedVerbsError(
        'access-denied',
        `everybody may use the cluster key file ${path}; run chmod o= ${path}`,
        { path },
      )
    }
    text = readFileSync(path, 'utf8')
  } catch (error) {
    if (error instanceof SharedVerbsError) throw error
    const reason = (error as NodeJS.ErrnoException).code ?? String(error)
    throw new SharedVerbsError(
      'invalid-argument',
      `cannot read the cluster key file ${path}: ${reason}`,
      { path },
      error,
    )
  }
  const key = text.trim()
  if (key === '') throw new SharedVerbsError('invalid-argument', `the cluster key file ${path} is empty`, { path })
  return key
}
