/** Pages are taken out of a shared mapping by another holder of its file: does reading them give zeroes, or kill the reader? */
import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const POOL = '/proc/sys/vm/nr_hugepages'
const child = fileURLToPath(new URL('./punched-child.js', import.meta.url))

function outcomeOf(kind: 'ordinary' | 'huge'): string {
  const { stdout, stderr, signal, status } = spawnSync(process.execPath, [child, kind], { encoding: 'utf8' })
  return signal ?? (status === 0 ? stdout.trim() : `status ${status}: ${stderr.trim().slice(-200)}`)
}

export function probePunched(): Record<string, unknown> {
  writeFileSync(POOL, '1')
  const hugePages = readFileSync(POOL, 'utf8').trim()
  const ordinary = outcomeOf('ordinary')
  const huge = hugePages === '0' ? 'the kernel gave no huge page' : outcomeOf('huge')
  writeFileSync(POOL, '0')
  return { ordinary, huge }
}
