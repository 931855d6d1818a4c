/** Programs of the host that the machine is built and run with. */
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'

/** A command that was run to its end, or an error with what it said. */
export function run(command: string, ...given: string[]): string {
  const { status, stdout, stderr, error } = spawnSync(command, given, { encoding: 'utf8', maxBuffer: 1 << 28 })
  if (status === 0) return stdout
  throw new Error(`${command} ${given.join(' ')}: ${error?.message ?? stderr.trim().split('\n').slice(-3).join('; ')}`)
}

const needs: Readonly<Record<string, string>> = {
  'qemu-system-x86_64': 'qemu-system-x86',
  busybox: 'busybox-static',
  rdma: 'iproute2',
  tc: 'iproute2',
  ibv_rc_pingpong: 'ibverbs-utils',
  modprobe: 'kmod',
  cpio: 'cpio',
  'dpkg-deb': 'dpkg',
  'apt-get': 'apt',
}
const libraries: Readonly<Record<string, string>> = {
  'libibverbs.so.1': 'libibverbs1',
  'libibverbs/librxe-rdmav34.so': 'ibverbs-providers',
}

const folders = (process.env.PATH ?? '').split(':').concat('/usr/sbin', '/sbin')
const hasCommand = (name: string): boolean => folders.some((folder) => existsSync(`${folder}/${name}`))
const hasLibrary = (name: string): boolean => existsSync(`/usr/lib/x86_64-linux-gnu/${name}`)

/** Debian packages that are missing here. */
export function missingPackages(): string[] {
  const commands = Object.entries(needs).filter(([command]) => !hasCommand(command))
  const files = Object.entries(libraries).filter(([file]) => !hasLibrary(file))
  return [...new Set([...commands, ...files].map(([, name]) => name))]
}

/** Installs what is missing when allowed to; the reason why the machine cannot be had, or null. */
export function prepareHost(): string | null {
  if (process.arch !== 'x64') return `the machine is x86-64 and this is ${process.arch}`
  const missing = missingPackages()
  if (missing.length === 0) return null
  if (!hasCommand('apt-get')) return `not Debian, and ${missing.join(', ')} is missing`
  if (process.getuid?.() !== 0) return `missing Debian packages: ${missing.join(', ')} (root would install them)`
  try {
    run('apt-get', 'update')
    run('apt-get', 'install', '--yes', '--no-install-recommends', ...missing)
  } catch (error) {
    return `installing ${missing.join(', ')}: ${error instanceof Error ? error.message : String(error)}`
  }
  return null
}
