/** What the provider says to a process that may not open the device, or may lock little memory. */
import { spawnSync } from 'node:child_process'
import { chmodSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { verbsDevices } from '../../../broker/provider/verbs-inventory.js'

const NOBODY = '65534'
const child = fileURLToPath(new URL('./refusals-child.js', import.meta.url))

/** A user without privileges, who may lock `lockable` KiB. */
function asNobody(lockable: string): string {
  const script = 'ulimit -l "$1"; shift; exec setpriv --reuid="$1" --clear-groups "$2" "$3"'
  const given = ['-c', script, 'sh', lockable, NOBODY, process.execPath, child]
  const { stdout, stderr } = spawnSync('sh', given, { encoding: 'utf8' })
  return stdout.trim() === '' ? `no answer: ${stderr.trim().slice(-300)}` : stdout.trim()
}

export function probeRefusals(): Record<string, unknown> {
  const node = verbsDevices()[0]!.node!
  chmodSync(node, 0o600)
  const withoutPermission = asNobody('unlimited')
  chmodSync(node, 0o666)
  const withLittleMemory = asNobody('64')
  const withEnoughMemory = asNobody('unlimited')
  return { withoutPermission, withLittleMemory, withEnoughMemory }
}
