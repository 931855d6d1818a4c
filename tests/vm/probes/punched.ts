/** Pages are taken out of a shared mapping by another holder of its file: does reading them give zeroes, or kill the reader? */
import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const POOL = '/proc/sys/vm/nr_hugepages'
const child = fileURLToPath(new URL('./punched-child.js', import.meta.url))

/** The child takes the pool away in its course. */
function outcomeOf(kind: 'ordinary' | 'huge'): string {
  writeFileSync(POOL, '1')
  if (kind === 'huge' && readFileSync(POOL, 'utf8').trim() === '0') return 'the kernel gave no huge page'
  const { stdout, stderr, signal, status } = spawnSync(process.execPath, [child, kind], { encoding: 'utf8' })
  return signal ?? (status === 0 ? stdout.trim() : `status ${status}: ${stderr.trim().slice(-200)}`)
}

export function probePunched(): Record<string, unknown> {
  const answers = { ordinary: outcomeOf('ordinary'), huge: outcomeOf('huge') }
  writeFileSync(POOL, '0')
  return answers
}
