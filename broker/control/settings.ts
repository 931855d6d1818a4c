/** What a broker can be told, checked once; everybody else reads `Settings`, in which nothing is missing. */
import { hostname } from 'node:os'
import type { DestinationStream } from 'pino'
import { isNodeName } from '../../protocol/address.js'
import { SharedVerbsError } from '../../protocol/errors.js'
import { defaults, limits as protocolLimits } from '../../protocol/limits.js'
import { EngineClient } from '../engine/engine-client.js'
import { noPathChoice, type PathChoice } from '../provider/provider.js'
import { type Clock, systemClock } from './clock.js'
import type { StartEngine } from './engine.js'
import { type BrokerLimits, defaultLimits } from './limits.js'
import type { Standby } from './runtime-directory.js'

export interface BrokerOptions {
  readonly runtimeDirectory: string
  /** Name of this node; default: the host's name. */
  readonly node?: string
  readonly provider?: 'soft' | 'verbs' | 'auto'
  readonly device?: string | null
  /** What of the device's path is chosen by hand. */
  readonly path?: PathChoice
  /** Address on which the control link and the soft provider listen, IPv4. */
  readonly host?: string
  /** Port of the control link; 0 = any. */
  readonly port?: number
  /** Addresses of other nodes by name, 'host:port'. */
  readonly peers?: Readonly<Record<string, string>>
  /** A file with lines `name host:port`, read again whenever a name is asked for. */
  readonly peersFile?: string
  /** Secret that all brokers of the cluster know. Empty: this broker has no links, only its own node. */
  readonly clusterKey: string
  /** Shared queue pairs for each pair of nodes and job; the smaller of both sides' wishes is used. */
  readonly lanes?: number
  readonly sharing?: 'job'
  readonly idleReapMs?: number
  /** How long a session may take to come back after a restart of the broker. */
  readonly reattachGraceMs?: number
  /** How long what was posted to a node that was lost waits for it. */
  readonly peerGraceMs?: number
  /** Wait for a broker that runs in the directory to end or hand over, instead of refusing to start. */
  readonly standby?: Standby | null
  /** How the engine waits for work. */
  readonly idle?: 'adaptive' | 'spin' | 'block'
  readonly bounceCount?: number
  readonly bounceByteLength?: number
  readonly bulkWindowByteLength?: number
  readonly limits?: Partial<BrokerLimits>
  readonly socketMode?: number
  /** A level of pino, or 'silent'. */
  readonly logLevel?: string
  /** Default: standard error. */
  readonly logStream?: DestinationStream
  /** Names of the engine's fault hooks, for tests. */
  readonly faults?: string
  readonly clock?: Clock
  /** 0 ≤ random() < 1; spreads retries, never makes secrets. */
  readonly random?: () => number
  readonly startEngine?: StartEngine
}

export interface Settings extends Required<Omit<BrokerOptions, 'peersFile' | 'logStream' | 'limits'>> {
  readonly peersFile: string | null
  readonly logStream: DestinationStream | null
  readonly limits: BrokerLimits
}

const refuse = (option: string, value: unknown, cure: string): never => {
  throw new SharedVerbsError('invalid-argument', `option ${option} is ${JSON.stringify(value)}; ${cure}`, { option })
}

/** Throws `invalid-argument` naming the option, its value and what it may be. Never repeats a key. */
export function checkSettings(options: BrokerOptions): Settings {
  const settings: Settings = {
    runtimeDirectory: options.runtimeDirectory,
    node: options.node ?? hostname(),
    provider: options.provider ?? 'auto',
    device: options.device ?? null,
    path: options.path ?? noPathChoice,
    host: options.host ?? '127.0.0.1',
    port: options.port ?? 0,
    peers: options.peers ?? {},
    peersFile: options.peersFile ?? null,
    clusterKey: options.clusterKey,
    lanes: options.lanes ?? defaults.lanes,
    sharing: options.sharing ?? 'job',
    idleReapMs: options.idleReapMs ?? 60_000,
    reattachGraceMs: options.reattachGraceMs ?? 5000,
    peerGraceMs: options.peerGraceMs ?? 30_000,
    standby: options.standby ?? null,
    idle: options.idle ?? 'adaptive',
    bounceCount: options.bounceCount ?? defaults.bounceCount,
    bounceByteLength: options.bounceByteLength ?? defaults.bounceByteLength,
    bulkWindowByteLength: options.bulkWindowByteLength ?? 2 ** 22,
    limits: { ...defaultLimits, ...options.limits },
    socketMode: options.socketMode ?? 0o600,
    logLevel: options.logLevel ?? 'info',
    logStream: options.logStream ?? null,
    faults: options.faults ?? '',
    clock: options.clock ?? systemClock,
    random: options.random ?? Math.random,
    startEngine: options.startEngine ?? ((engineOptions) => EngineClient.start(engineOptions)),
  }
  checkNames(settings)
  checkNumbers(settings)
  return settings
}

function checkNames(settings: Settings): void {
  if (!isNodeName(settings.node)) {
    refuse('node', settings.node, 'use letters, digits, dots, dashes and underscores, at most 64')
  }
  for (const name of Object.keys(settings.peers)) {
    if (!isNodeName(name)) refuse('peers', name, 'names of nodes are host-name like')
  }
  // Whoever asks for sharing across jobs asks for less isolation than this build can prove.
  if (settings.sharing !== 'job') refuse('sharing', settings.sharing, "only 'job' is offered")
  if (settings.socketMode !== 0o600 && settings.socketMode !== 0o660) {
    refuse('socketMode', settings.socketMode, 'use 0600 or 0660')
  }
}

function checkNumbers(settings: Settings): void {
  const whole = (option: keyof Settings, minimum: number, maximum: number): void => {
    const value = settings[option]
    if (Number.isSafeInteger(value) && Number(value) >= minimum && Number(value) <= maximum) return
    refuse(option, value, `use a whole number from ${minimum} to ${maximum}`)
  }
  whole('port', 0, 65535)
  whole('lanes', 1, protocolLimits.lanes)
  whole('idleReapMs', 1, 2 ** 31 - 1)
  whole('reattachGraceMs', 0, 2 ** 31 - 1)
  whole('peerGraceMs', 0, 2 ** 31 - 1)
  whole('bounceCount', 8, 65536)
  // A frame's length has 16 bits and its messages stand on 8 bytes.
  whole('bounceByteLength', 256, 65528)
  if (settings.bounceByteLength % 8 !== 0) refuse('bounceByteLength', settings.bounceByteLength, 'use a multiple of 8')
  whole('bulkWindowByteLength', 4096, 2 ** 40)
  for (const [name, value] of Object.entries(settings.limits)) {
    if (!(value >= 0)) refuse(`limits.${name}`, value, 'use a number from 0')
  }
}
