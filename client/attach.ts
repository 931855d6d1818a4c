/** Attaching: from a runtime directory and a job to a session. */
import { readFileSync } from 'node:fs'
import { basename } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { brokerPage, brokerPageMagic } from '../protocol/broker-page.js'
import type { EventBody, EventName } from '../protocol/control.js'
import { SharedVerbsError } from '../protocol/errors.js'
import { controlSocketPath, runtimeDirectory } from '../protocol/paths.js'
import { abiVersion, clientFingerprint } from '../protocol/version.js'
import { Doorbell } from '../shm/doorbell.js'
import { SystemCallError } from '../shm/libc.js'
import { LivenessMonitor, LivenessToken } from '../shm/liveness.js'
import type { Mapping } from '../shm/mapping.js'
import { type AttachGrant, Attachment } from './attachment.js'
import { ControlClient, closeAll } from './control-client.js'
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
}

const retryMs = 20

/**
 * Attaches this process (or worker thread) to the broker of this node. Throws `broker-not-running`, `access-denied`,
 * `wrong-job-key`, `abi-mismatch`, `limit-exceeded`, `draining`, `timeout`.
 */
export async function attach(options: AttachOptions = {}): Promise<Session> {
  const { runtimeDir, job, jobKey, name, timeoutMs } = withDefaults(options)
  // Events and the end of the connection may come before the session that hears them exists.
  let session: Session | undefined
  const control = await connect(runtimeDir, timeoutMs, {
    onEvent: (event, body) => session?.receive(event, body),
    onLost: (error) => session?.brokerLost(error),
  })
  try {
    const { result, descriptors } = await control.request(
      'attach',
      { abiVersion, fingerprint: clientFingerprint, job, jobKey, name, processId: process.pid },
      { timeoutMs },
    )
    session = new Session(open(result, descriptors, control))
    if (control.ended) session.brokerLost(control.ended)
    return session
  } catch (error) {
    control.close()
    throw error
  }
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

/** The broker's queue of connections may be full for a moment: then again until the deadline. */
async function connect(
  runtimeDir: string,
  timeoutMs: number,
  handlers: { onEvent(name: EventName, body: EventBody<EventName>): void; onLost(error: SharedVerbsError): void },
): Promise<ControlClient> {
  const deadlineMs = performance.now() + timeoutMs
  const path = controlSocketPath(runtimeDir)
  for (;;) {
    try {
      return ControlClient.connect(path, handlers)
    } catch (error) {
      const busy = error instanceof SystemCallError && error.code === 'EAGAIN'
      if (!busy || performance.now() > deadlineMs) throw connectError(error, path, runtimeDir)
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
    checkPage(page, grant)
    const activity = keep(mapSegment(left.shift(), grant.activityByteLength, true))
    const liveness = left[0]!
    const token = holdToken(liveness, grant)
    keep({ close: () => token.release() })
    const monitor = keep(new LivenessMonitor(liveness))
    closeAll(left.splice(0, 1))
    const doorbell = keep(new Doorbell(left.shift()!))
    const engineDoorbell = new Doorbell(left.shift()!)
    return new Attachment({ grant, control, page, activity, token, monitor, doorbell, engineDoorbell })
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

function checkPage(page: Mapping, grant: AttachGrant): void {
  const found = brokerPage.read(page.memory, 0)
  const isPage = found.magic === brokerPageMagic && found.version === abiVersion
  if (isPage && found.fingerprint === clientFingerprint) return
  throw new SharedVerbsError(
    'abi-mismatch',
    `broker process ${grant.brokerProcessId} lays shared memory out differently; run broker and client of one version`,
    {
      version: found.version,
      expectedVersion: abiVersion,
      fingerprint: found.fingerprint,
      expected: clientFingerprint,
    },
  )
}
