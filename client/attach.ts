/** Attaching: from a runtime directory and a job to a session. */
import { readFileSync } from 'node:fs'
import { basename } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { SharedVerbsError } from '../protocol/errors.js'
import { controlSocketPath, runtimeDirectory } from '../protocol/paths.js'
import { abiVersion, clientFingerprint } from '../protocol/version.js'
import { Doorbell } from '../shm/doorbell.js'
import { SystemCallError } from '../shm/libc.js'
import { LivenessMonitor, LivenessToken } from '../shm/liveness.js'
import { type AttachGrant, Attachment } from './attachment.js'
import { ControlClient, type ControlHandlers, closeAll } from './control-client.js'
import { checkPage, reattachSteps } from './reattachment.js'
import { Recovery } from './recovery.js'
import { mapSegment } from './segments.js'
import { Session } from './session.js'

export interface AttachOptions {
  /** Where the broker lives. Default: $SHARED_VERBS_DIR, $XDG_RUNTIME_DIR/shared-verbs, /run/shared-verbs. */
  readonly runtimeDir?: string
  /** The job; objects are visible inside it only. Default: $SHARED_VERBS_JOB, $SLURM_JOB_ID, 'default'. */
  readonly job?: string
  /** Secret of the job. Default: $SHARED_VERBS_JOB_KEY, the first line of the file $SHARED_VERBS_JOB_KEY_FILE, ''. */
  readonly jobKey?: string
  /** How `broker inspect` shows this session. Default: script name and process id. */
  readonly name?: string
  /** Deadline for the broker's answer. Default 5000. */
  readonly timeoutMs?: number
  /**
   * How long a session whose broker was lost looks for the next one and goes on with it; then, or when that refuses it, the session
   * ends. 0: it ends at once. Default 30,000.
   */
  readonly reconnectTimeoutMs?: number
}

const retryMs = 20

/**
 * Attaches this process (or worker thread) to the broker of this node. Throws `broker-not-running`, `access-denied`,
 * `wrong-job-key`, `abi-mismatch`, `limit-exceeded`, `draining`, `timeout`.
 */
export async function attach(options: AttachOptions = {}): Promise<Session> {
  const given = withDefaults(options)
  const deadlineMs = performance.now() + given.timeoutMs
  for (let brokers = 0; ; brokers++) {
    try {
      return await attachOnce(given, deadlineMs, brokers > 0)
    } catch (error) {
      // A broker that ends while it is asked may have a successor.
      const lost = error instanceof SharedVerbsError && error.code === 'broker-lost'
      if (!lost || given.reconnectTimeoutMs === 0 || performance.now() >= deadlineMs) throw error
    }
    await sleep(retryMs)
  }
}

async function attachOnce(given: Required<AttachOptions>, deadlineMs: number, patient: boolean): Promise<Session> {
  const { runtimeDir, job, jobKey, name } = given
  // Events and the end of the connection may come before the session that hears them exists.
  let session: Session | undefined
  const handlers: ControlHandlers = {
    onEvent: (event, body) => session?.receive(event, body),
    onLost: (error) => session?.brokerLost(error),
  }
  const control = await connect(runtimeDir, deadlineMs, patient, handlers)
  try {
    const { result, descriptors } = await control.request(
      'attach',
      { abiVersion, fingerprint: clientFingerprint, job, jobKey, name, processId: process.pid },
      { timeoutMs: deadlineMs - performance.now() },
    )
    const attachment = open(result, descriptors, control)
    session = new Session(attachment)
    if (given.reconnectTimeoutMs > 0) attachment.recovery = recoveryOf(session, handlers, given)
    if (control.ended) session.brokerLost(control.ended)
    return session
  } catch (error) {
    control.close()
    throw error
  }
}

function recoveryOf(
  session: Session,
  handlers: ControlHandlers,
  { runtimeDir, job, jobKey, reconnectTimeoutMs }: Required<AttachOptions>,
): Recovery {
  const { attachment } = session
  return new Recovery({
    path: controlSocketPath(runtimeDir),
    timeoutMs: reconnectTimeoutMs,
    steps: () => reattachSteps(attachment, { job, jobKey }),
    onBack: ({ descriptor, nextId, reattached, events }) => {
      const { grant, page, engineDoorbell } = reattached
      const control = ControlClient.adopt(descriptor, nextId, handlers)
      attachment.renew({ epoch: grant.epoch, control, page, engineDoorbell })
      session.brokerBack()
      for (const { name, body } of events) session.receive(name, body)
    },
    onFailed: (refusal) => session.brokerGone(refusal),
  })
}

function withDefaults(options: AttachOptions): Required<AttachOptions> {
  const environment = process.env
  return {
    runtimeDir: runtimeDirectory(options.runtimeDir, environment),
    job: options.job ?? (environment['SHARED_VERBS_JOB'] || environment['SLURM_JOB_ID'] || 'default'),
    jobKey:
      options.jobKey ?? environment['SHARED_VERBS_JOB_KEY'] ?? keyFromFile(environment['SHARED_VERBS_JOB_KEY_FILE']),
    name: (options.name ?? `${basename(process.argv[1] ?? 'node')}-${process.pid}`).slice(-64),
    timeoutMs: options.timeoutMs ?? 5000,
    reconnectTimeoutMs: options.reconnectTimeoutMs ?? 30_000,
  }
}

function keyFromFile(path: string | undefined): string {
  if (!path) return ''
  try {
    return readFileSync(path, 'utf8').split('\n', 1)[0]!.trimEnd()
  } catch (cause) {
    throw new SharedVerbsError(
      'access-denied',
      `cannot read the job key from ${path}, which $SHARED_VERBS_JOB_KEY_FILE names`,
      { path },
      cause,
    )
  }
}

/** The broker's queue of connections may be full for a moment: then again until the deadline. `patient`: also when nobody listens. */
async function connect(
  runtimeDir: string,
  deadlineMs: number,
  patient: boolean,
  handlers: ControlHandlers,
): Promise<ControlClient> {
  const path = controlSocketPath(runtimeDir)
  for (;;) {
    try {
      return ControlClient.connect(path, handlers)
    } catch (error) {
      const code = error instanceof SystemCallError ? error.code : ''
      const passing = code === 'EAGAIN' || (patient && (code === 'ENOENT' || code === 'ECONNREFUSED'))
      if (!passing || performance.now() > deadlineMs) throw connectError(error, path, runtimeDir)
    }
    await sleep(retryMs)
  }
}

function connectError(cause: unknown, path: string, runtimeDir: string): unknown {
  if (!(cause instanceof SystemCallError)) return cause
  const context = { path, systemCode: cause.code }
  switch (cause.code) {
    case 'ENOENT':
    case 'ECONNREFUSED':
    case 'ENOTDIR':
      return new SharedVerbsError(
        'broker-not-running',
        `no broker listens on ${path}; start one with \`npx broker start --runtime-dir ${runtimeDir}\``,
        context,
        cause,
      )
    case 'EACCES':
    case 'EPERM':
      return new SharedVerbsError(
        'access-denied',
        `may not connect to ${path}; are you its user or in its group?`,
        context,
        cause,
      )
    case 'EAGAIN':
      return new SharedVerbsError('timeout', `the broker on ${path} does not take connections`, context, cause)
    default:
      return new SharedVerbsError('system-call-failed', `cannot connect to ${path}: ${cause.message}`, context, cause)
  }
}

/** Turns the grant and its descriptors into an attachment; whatever fails, nothing stays open. */
function open(grant: AttachGrant, descriptors: readonly number[], control: ControlClient): Attachment {
  const left = [...descriptors]
  const made: { close(): void }[] = []
  const keep = <Thing extends { close(): void }>(thing: Thing): Thing => {
    made.push(thing)
    return thing
  }
  try {
    const page = keep(mapSegment(left.shift(), grant.brokerPageByteLength, false))
    checkPage(page, grant.brokerProcessId)
    const activity = keep(mapSegment(left.shift(), grant.activityByteLength, true))
    // Kept for the next broker, which has only what its clients show it.
    const liveness = left.shift()!
    keep({ close: () => closeAll([liveness]) })
    const token = holdToken(liveness, grant)
    keep({ close: () => token.release() })
    const monitor = keep(new LivenessMonitor(liveness))
    const doorbell = keep(new Doorbell(left.shift()!))
    const engineDoorbell = new Doorbell(left.shift()!)
    const broker = { epoch: grant.epoch, control, page, engineDoorbell }
    return new Attachment({ grant, activity, liveness, token, monitor, doorbell, broker })
  } catch (error) {
    for (const thing of made.reverse()) thing.close()
    closeAll(left)
    throw error
  }
}

function holdToken(liveness: number, { member, brokerProcessId }: AttachGrant): LivenessToken {
  try {
    return LivenessToken.hold(liveness, member)
  } catch (cause) {
    throw new SharedVerbsError(
      'protocol-violation',
      `the broker (process ${brokerProcessId}) gave out member ${member}, which cannot be taken; restart the broker`,
      { member, brokerProcessId },
      cause,
    )
  }
}
