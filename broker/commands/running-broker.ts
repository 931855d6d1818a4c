/** Finding the broker of a directory and telling it something: `stop` and `drain` speak to it by signals, which need no socket and no key. */
import { SharedVerbsError } from '../../protocol/errors.js'
import { type NodeFileSnapshot, readNodeFile, unseenProcess } from '../observe/node-file-reader.js'

/** The snapshot of a broker that lives; throws `broker-not-running` for one that stopped or died. */
export function findRunningBroker(runtimeDirectory: string): NodeFileSnapshot {
  const snapshot = readNodeFile(runtimeDirectory)
  if (snapshot.lockHolder !== 0) return snapshot
  const { node, processId } = snapshot.header
  throw new SharedVerbsError(
    'broker-not-running',
    `no broker runs in ${runtimeDirectory}; the last one, node ${node}, pid ${processId}, ${snapshot.life === 'dead' ? 'died' : 'stopped'}`,
    { runtimeDirectory, processId },
  )
}

/** Sent to the holder of the kernel lock, never to a number read from a file, which may belong to somebody else by now. */
export function signalBroker(snapshot: NodeFileSnapshot, signal: NodeJS.Signals): void {
  const { lockHolder } = snapshot
  if (lockHolder === unseenProcess) {
    throw new SharedVerbsError(
      'access-denied',
      `the broker of ${snapshot.path} runs in another pid namespace; run this command there`,
      { path: snapshot.path },
    )
  }
  try {
    process.kill(lockHolder, signal)
  } catch (error) {
    const reason = (error as NodeJS.ErrnoException).code
    if (reason === 'ESRCH') return
    throw new SharedVerbsError('access-denied', `cannot signal the broker, pid ${lockHolder}: ${reason}`, {
      lockHolder,
    })
  }
}
