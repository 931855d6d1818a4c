/** One node of the demo: a broker in a directory of its own, and the job's processes there. */
import { closeSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { SharedVerbsError } from '../../../protocol/errors.js'
import { type Sharing, sharingOf } from '../../observe/inspect-overview.js'
import { readNodeFile } from '../../observe/node-file-reader.js'
import { spawnBroker, whenStarted } from '../child-broker.js'
import type { Children } from './children.js'
import type { NodeName } from './settings.js'

export interface NodeOptions {
  readonly name: NodeName
  readonly host: string
  readonly directory: string
  readonly port: number
  readonly peer: { readonly name: NodeName; readonly port: number }
  readonly clusterKeyFile: string
  readonly lanes: number
  readonly provider: 'soft' | 'verbs' | 'auto'
  /** How its engine waits. Default adaptive. */
  readonly idle?: 'adaptive' | 'spin' | 'block'
}

export class DemoNode {
  readonly name: NodeName
  readonly runtimeDirectory: string
  readonly logPath: string
  readonly #options: NodeOptions

  constructor(options: NodeOptions) {
    this.name = options.name
    this.#options = options
    this.runtimeDirectory = join(options.directory, options.name)
    this.logPath = join(options.directory, `${options.name}.log`)
  }

  async start(children: Children): Promise<void> {
    const { name, host, port, peer, clusterKeyFile, lanes, provider, idle = 'adaptive' } = this.#options
    const log = openSync(this.logPath, 'a', 0o600)
    const startArguments = [
      ...['--runtime-dir', this.runtimeDirectory, '--node', name, '--provider', provider],
      ...['--host', host, '--port', String(port), '--peer', `${peer.name}=${host}:${peer.port}`],
      ...[
        '--cluster-key-file',
        clusterKeyFile,
        '--lanes',
        String(lanes),
        '--idle',
        idle,
        '--log-level',
        'info',
        '--json',
      ],
    ]
    const child = children.add(spawnBroker({ startArguments, output: log, detached: true }))
    closeSync(log)
    try {
      await whenStarted(child)
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error)
      throw new SharedVerbsError(
        'internal-error',
        `demo: broker ${name} did not start: ${message}\n${this.lastWords()}`,
      )
    }
  }

  /** What its node file says now. */
  sharing(): Sharing {
    return sharingOf(readNodeFile(this.runtimeDirectory))
  }

  /** What the broker complained about last, for an error of the demo; else how its log ends. */
  lastWords(): string {
    try {
      const lines = readFileSync(this.logPath, 'utf8').trim().split('\n')
      const complaints = lines.filter((line) => /^\{"level":[4-6]0,/.test(line) || line.startsWith('{"error"'))
      const chosen = complaints.length > 0 ? complaints : lines
      return chosen.slice(-LAST_WORDS).map(wordsOf).join('\n')
    } catch {
      return 'nothing'
    }
  }
}

const LAST_WORDS = 3
const LONGEST_WORDS = 300

/** The message of a line of the log, without what every line has. */
function wordsOf(line: string): string {
  try {
    const { kind, code, subject, msg } = JSON.parse(line) as Record<string, unknown>
    const words = [kind, code, subject, msg].filter((word) => typeof word === 'string').join(': ')
    return (words === '' ? line : words).split('\n', 1)[0]!.slice(0, LONGEST_WORDS)
  } catch {
    return line.slice(0, LONGEST_WORDS)
  }
}
