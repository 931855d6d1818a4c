/** `broker drain --handover`: asks the broker by its control socket, then waits until its successor has everything going. */
import { brokerState } from '../../protocol/broker-page.js'
import { decodeBrokerMessage, encodeRequest } from '../../protocol/codec.js'
import { SharedVerbsError } from '../../protocol/errors.js'
import { controlSocketPath } from '../../protocol/paths.js'
import { SystemCallError } from '../../shm/libc.js'
import { SeqpacketConnection } from '../../shm/seqpacket.js'
import { type NodeFileSnapshot, readNodeFile } from '../observe/node-file-reader.js'
import type { DrainOptions } from './drain.js'
import { directoryOf } from './options.js'
import { printJson, printLine } from './output.js'
import { findRunningBroker } from './running-broker.js'
import { waitUntil } from './wait.js'

/** For the successor, which may wait for sessions that do not come back. */
const TAKE_OVER_MS = 30_000
/** The broker answers a moment after its own deadline. */
const ANSWER_GRACE_MS = 5000

export async function handOver(options: DrainOptions): Promise<void> {
  const directory = directoryOf(options)
  const before = findRunningBroker(directory).header
  await ask(controlSocketPath(directory), options.timeoutMs)
  const now = (): NodeFileSnapshot => readNodeFile(directory)
  const hasTaken = (): boolean => {
    const { header } = now()
    const running = header.epoch > before.epoch && header.state === brokerState.running
    return running && header.resumedTimeMs >= header.quiescedTimeMs
  }
  if (!(await waitUntil(hasTaken, TAKE_OVER_MS))) {
    const message = `broker ${before.processId} gave way, and its successor has not everything going after ${TAKE_OVER_MS} ms; see 'broker status'`
    throw new SharedVerbsError('timeout', message, { processId: before.processId })
  }
  const { node, processId, epoch, quiescedTimeMs, resumedTimeMs } = now().header
  const blackoutMs = resumedTimeMs - quiescedTimeMs
  if (options.json) printJson({ node, from: before.processId, processId, epoch, blackoutMs })
  else printLine({ noun: 'broker', fields: { node, from: before.processId, pid: processId, epoch, blackoutMs } })
}

/** Settles when the broker has given way; throws why it has not. */
function ask(path: string, timeoutMs: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const connection = connect(path)
    const end = (settle: () => void): void => {
      clearTimeout(timer)
      settle()
      connection.close()
    }
    const fail = (error: unknown): void => end(() => reject(error))
    const late = new SharedVerbsError('timeout', `the broker did not answer in ${timeoutMs + ANSWER_GRACE_MS} ms`)
    const timer = setTimeout(() => fail(late), timeoutMs + ANSWER_GRACE_MS)
    connection.start({
      onMessage: (bytes) => {
        const message = decodeBrokerMessage(bytes)
        if (message.kind === 'failure') fail(SharedVerbsError.fromWire(message.error))
        else end(resolve)
      },
      onClose: () =>
        fail(new SharedVerbsError('broker-lost', 'the broker ended before it answered; see broker status')),
    })
    connection.send(encodeRequest(1, 'handover', { timeoutMs }))
  })
}

function connect(path: string): SeqpacketConnection {
  try {
    return SeqpacketConnection.connect(path)
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error
    throw new SharedVerbsError('access-denied', `cannot speak to the broker on ${path}: ${error.code}`, { path }, error)
  }
}
