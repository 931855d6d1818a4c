/** Options that several commands share, and the checks of their values. A refused value is named in the error. */
import { InvalidArgumentError, Option } from 'commander'
import { isNodeName } from '../../protocol/address.js'
import { runtimeDirectory } from '../../protocol/paths.js'

export interface CommonOptions {
  readonly runtimeDir?: string
  readonly json?: boolean
}

export const runtimeDirOption = (): Option =>
  new Option(
    '--runtime-dir <path>',
    'directory of the broker (else $SHARED_VERBS_DIR, $XDG_RUNTIME_DIR/shared-verbs, …)',
  )

export const jsonOption = (): Option => new Option('--json', 'print JSON, errors too')

export const timeoutOption = (defaultMs: number, what: string): Option =>
  new Option('--timeout-ms <n>', what).argParser(wholeNumber(0, 3_600_000)).default(defaultMs)

export const directoryOf = (options: CommonOptions): string => runtimeDirectory(options.runtimeDir, process.env)

/** commander adds "option '--port <n>' argument 'x' is invalid." in front. */
export function wholeNumber(minimum: number, maximum: number): (text: string) => number {
  return (text) => {
    const value = Number(text)
    if (!/^\d+$/.test(text) || value < minimum || value > maximum) {
      throw new InvalidArgumentError(`A whole number from ${minimum} to ${maximum} is needed.`)
    }
    return value
  }
}

/** `mlx5_0` or `mlx5_0:2`, as other RDMA tools write it. */
export function devicePort(text: string): { readonly name: string; readonly port: number | null } {
  const [, name = '', port] = /^([^:]+)(?::(\d{1,3}))?$/.exec(text) ?? []
  if (name === '') throw new InvalidArgumentError('A device is needed, such as mlx5_0, or one with its port, mlx5_0:2.')
  return { name, port: port === undefined ? null : Number(port) }
}

export function pathMtu(text: string): number {
  const sizes = [256, 512, 1024, 2048, 4096]
  if (!sizes.includes(Number(text))) throw new InvalidArgumentError(`One of ${sizes.join(', ')} is needed.`)
  return Number(text)
}

export function nodeName(text: string): string {
  if (!isNodeName(text)) {
    throw new InvalidArgumentError('Letters, digits, dots, dashes and underscores make a node name, at most 64.')
  }
  return text
}

export interface PeerAddress {
  readonly name: string
  readonly host: string
  readonly port: number
}

const PEER = /^([^=\s]+)=(\[[0-9A-Fa-f:]+\]|[^:\s]+):(\d{1,5})$/

/** beta=10.0.0.2:7471 */
export function peerAddress(text: string): PeerAddress {
  const [, name = '', host = '', port = ''] = PEER.exec(text) ?? []
  if (!isNodeName(name) || Number(port) < 1 || Number(port) > 65_535) {
    throw new InvalidArgumentError('A peer is written name=host:port.')
  }
  return { name, host, port: Number(port) }
}

/** For options that may be given several times. */
export function gathered<Value>(
  parse: (text: string) => Value,
): (text: string, before: Value[] | undefined) => Value[] {
  return (text, before = []) => [...before, parse(text)]
}
