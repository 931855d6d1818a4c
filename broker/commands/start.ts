import type { Command } from 'commander'
import { Option } from 'commander'
import { SharedVerbsError } from '../../protocol/errors.js'
import { defaults, limits } from '../../protocol/limits.js'
import type { BrokerOptions } from '../control/settings.js'
import { readClusterKey } from './cluster-key.js'
import { exitCodeHelp } from './exit-codes.js'
import {
  type CommonOptions,
  devicePort,
  directoryOf,
  gathered,
  jsonOption,
  nodeName,
  type PeerAddress,
  pathMtu,
  peerAddress,
  runtimeDirOption,
  wholeNumber,
} from './options.js'
import { printJson, printLine } from './output.js'
import { findRunningBroker } from './running-broker.js'
import { startInBackground } from './start-background.js'

export interface StartOptions extends CommonOptions {
  readonly node?: string
  readonly provider: 'soft' | 'verbs' | 'auto'
  readonly device?: { readonly name: string; readonly port: number | null }
  readonly gidIndex?: number
  readonly mtu?: number
  readonly trafficClass: number
  readonly serviceLevel: number
  readonly host: string
  readonly port: number
  readonly peer?: PeerAddress[]
  readonly peersFile?: string
  readonly clusterKeyFile?: string
  readonly lanes: number
  readonly idle: 'adaptive' | 'spin' | 'block'
  readonly idleReapMs: number
  readonly reattachGraceMs: number
  readonly peerGraceMs: number
  readonly drainTimeoutMs: number
  readonly logLevel: string
  readonly logFile?: string
  readonly readyFd?: number
  readonly ensure?: boolean
  readonly daemon?: boolean
  readonly standby?: boolean
}

/** What is printed, and told to a parent, when sessions can attach, or when a standby waits for its turn. */
export interface Started {
  readonly event: 'started' | 'already-running' | 'standby'
  readonly node: string
  readonly processId: number
  readonly runtimeDirectory: string
  readonly linkAddress: string
  readonly epoch: number
}

const help = `
Ready when it says so on stdout; also by sd_notify, by a line on --ready-fd, and
by the node file. SIGTERM and SIGINT drain and stop, a second one stops at once;
SIGUSR2 drains and stays. Logs are JSON lines on stderr.

A broker that was killed is replaced by starting another one in the same
directory: sessions come back to it within --reattach-grace-ms and go on. With
--standby it waits beside a running broker until that one has ended or hands
over ('broker drain --handover'); one that is merely stopped is not replaced.

The cluster key, which all brokers of a cluster share, comes from a file that
others may not read (--cluster-key-file or $SHARED_VERBS_CLUSTER_KEY_FILE) or
from $SHARED_VERBS_CLUSTER_KEY. Without one the broker has no peers.

Examples:
  broker start --node alpha
  broker start --daemon --ensure --log-file /var/log/broker.log
  broker start --daemon --standby && broker drain --handover
  broker start --node alpha --host 10.0.0.1 --port 7471 \\
    --peer beta=10.0.0.2:7471 --cluster-key-file /etc/shared-verbs.key

${exitCodeHelp('success', 'failure', 'usage', 'alreadyRunning', 'timeout')}`

export function addStartCommand(program: Command): void {
  program
    .command('start')
    .summary('run the broker of this node')
    .description('Runs the broker of a runtime directory in the foreground.')
    .addOption(runtimeDirOption())
    .option('--node <name>', 'name of this node among its peers (default: the host name)', nodeName)
    .addOption(
      new Option('--provider <name>', 'verbs: an RDMA device; soft: TCP')
        .choices(['soft', 'verbs', 'auto'])
        .default('auto'),
    )
    .option('--device <name[:port]>', 'RDMA device (default: the first usable one)', devicePort)
    .option('--gid-index <n>', "row of the port's GIDs (default: by --host)", wholeNumber(0, 65_535))
    .option('--mtu <bytes>', 'at most this path MTU', pathMtu)
    .option('--traffic-class <n>', 'of queue pairs that ask for none', wholeNumber(0, 255), 0)
    .option('--service-level <n>', 'of all queue pairs', wholeNumber(0, 15), 0)
    .option('--host <address>', 'IPv4 address to listen on', '127.0.0.1')
    .option('--port <n>', 'port of the link between brokers; 0: any', wholeNumber(0, 65_535), 0)
    .option('--peer <name=host:port>', 'another broker; may be given again', gathered(peerAddress))
    .option('--peers-file <path>', "lines 'name host:port', read again for each unknown name")
    .option('--cluster-key-file <path>', 'secret shared with the other brokers')
    .option('--lanes <n>', 'shared queue pairs for each job and peer', wholeNumber(1, limits.lanes), defaults.lanes)
    .addOption(
      new Option('--idle <how>', 'how the engine waits').choices(['adaptive', 'spin', 'block']).default('adaptive'),
    )
    .option('--idle-reap-ms <n>', 'unused shared queue pairs go after', wholeNumber(1, 2 ** 31 - 1), 60_000)
    .option(
      '--reattach-grace-ms <n>',
      'sessions of a broker that died are awaited for',
      wholeNumber(0, 2 ** 31 - 1),
      5000,
    )
    .option('--peer-grace-ms <n>', 'connections wait for a lost node for', wholeNumber(0, 2 ** 31 - 1), 30_000)
    .option('--drain-timeout-ms <n>', 'longest wait for verdicts when stopping', wholeNumber(0, 3_600_000), 5000)
    .addOption(new Option('--log-level <name>', 'least level logged').choices(logLevels).default('info'))
    .option('--log-file <path>', 'append logs to a file instead of stderr')
    .option('--ready-fd <n>', "write 'ready' to this descriptor and close it", wholeNumber(3, 1023))
    .option('--ensure', 'be content when a broker runs already')
    .option('--daemon', 'in the background; returns when it is ready')
    .option('--standby', 'wait until the broker that runs has ended, then take its place')
    .addOption(jsonOption())
    .addHelpText('after', help)
    .action(start)
}

const logLevels = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'] as const

async function start(options: StartOptions): Promise<void> {
  try {
    if (options.daemon) announce(await startInBackground(options), options)
    else await startInForeground(options)
  } catch (error) {
    const running = error instanceof SharedVerbsError && error.code === 'broker-already-running'
    if (!running || !options.ensure) throw error
    announce(alreadyRunning(options), options)
  }
}

async function startInForeground(options: StartOptions): Promise<void> {
  // Only this command needs the broker itself; loading it would make all others slow.
  const { serveInForeground } = await import('./start-foreground.js')
  await serveInForeground(brokerOptions(options), options, (started) => announce(started, options))
}

function brokerOptions(options: StartOptions): BrokerOptions {
  const peers = Object.fromEntries((options.peer ?? []).map(({ name, host, port }) => [name, `${host}:${port}`]))
  return {
    runtimeDirectory: directoryOf(options),
    ...(options.node === undefined ? {} : { node: options.node }),
    provider: options.provider,
    device: options.device?.name ?? null,
    path: {
      port: options.device?.port ?? null,
      gidIndex: options.gidIndex ?? null,
      mtu: options.mtu ?? null,
      trafficClass: options.trafficClass,
      serviceLevel: options.serviceLevel,
    },
    host: options.host,
    port: options.port,
    peers,
    ...(options.peersFile === undefined ? {} : { peersFile: options.peersFile }),
    clusterKey: readClusterKey(options.clusterKeyFile, process.env),
    lanes: options.lanes,
    idle: options.idle,
    idleReapMs: options.idleReapMs,
    reattachGraceMs: options.reattachGraceMs,
    peerGraceMs: options.peerGraceMs,
    logLevel: options.logLevel,
  }
}

function alreadyRunning(options: StartOptions): Started {
  const runtimeDirectory = directoryOf(options)
  const { header } = findRunningBroker(runtimeDirectory)
  const { node, processId, linkAddress, epoch } = header
  return { event: 'already-running', node, processId, runtimeDirectory, linkAddress, epoch }
}

function announce(started: Started, options: StartOptions): void {
  if (options.json) {
    printJson(started)
    return
  }
  const { node, processId, runtimeDirectory, linkAddress } = started
  const state = { started: 'running', 'already-running': 'running already', standby: 'standby' }[started.event]
  printLine({
    noun: 'broker',
    fields: { node, state, pid: processId, dir: runtimeDirectory, link: linkAddress || null },
  })
}
