/** Kernel and initial file system of the virtual machine, made from Debian's packages and kept for the next time. */
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { run } from './commands.js'

/** crc32 comes first: without it rxe does not load, and no dependency says so. */
const modules =
  'crc32_generic crc32_pclmul virtio_pci virtio_net 9p 9pnet_virtio rdma_rxe ib_uverbs rdma_ucm veth sch_netem'

export interface Image {
  readonly kernel: string
  readonly initialFiles: string
  readonly release: string
}

/** The kernel package that Debian's own name for the newest one stands for. */
function newestKernelPackage(): string {
  const found = /Depends: (linux-image-[\w.+-]+)/.exec(run('apt-cache', 'depends', 'linux-image-amd64'))
  if (found === null) throw new Error('apt-cache knows no linux-image-amd64; apt-get update may be needed')
  return found[1]!
}

function fetchKernel(folder: string): string {
  const unpacked = join(folder, 'kernel')
  const releases = (): string[] => (existsSync(`${unpacked}/lib/modules`) ? readdirSync(`${unpacked}/lib/modules`) : [])
  if (releases().length === 0) {
    const name = newestKernelPackage()
    run('sh', '-c', 'cd "$1" && apt-get download "$2"', 'sh', folder, name)
    const file = readdirSync(folder).find((entry) => entry.startsWith(`${name}_`))
    if (file === undefined) throw new Error(`apt-get download left no ${name}`)
    run('dpkg-deb', '--extract', join(folder, file), unpacked)
    rmSync(join(folder, file))
  }
  const release = releases()[0]!
  run('depmod', '--basedir', unpacked, release)
  return release
}

/** Files of the modules in the order of loading. */
function moduleFiles(folder: string, release: string): string[] {
  const files = new Set<string>()
  for (const name of modules.split(' ')) {
    const lines = run('modprobe', '--dirname', join(folder, 'kernel'), '--set-version', release, '--show-depends', name)
    for (const [, file] of lines.matchAll(/^insmod (\S+)/gm)) files.add(file!)
  }
  return [...files]
}

function makeInitialFiles(folder: string, release: string, into: string): void {
  const tree = join(folder, 'tree')
  rmSync(tree, { recursive: true, force: true })
  for (const name of ['bin', 'proc', 'sys', 'dev', 'host', 'modules']) mkdirSync(join(tree, name), { recursive: true })
  copyFileSync(run('sh', '-c', 'command -v busybox').trim(), join(tree, 'bin/busybox'))
  const files = moduleFiles(folder, release)
  for (const file of files) copyFileSync(file, join(tree, 'modules', basename(file)))
  writeFileSync(join(tree, 'modules/order'), files.map((file) => `${basename(file)}\n`).join(''))
  copyFileSync(initSource(), join(tree, 'init'))
  chmodSync(join(tree, 'init'), 0o755)
  run('sh', '-c', 'cd "$1" && find . | cpio --quiet -o -H newc | gzip -1 > "$2"', 'sh', tree, into)
}

const initSource = (): string => fileURLToPath(new URL('./init.sh', import.meta.url))

/** Kept for the next time in `folder`; made anew when init.sh has changed. */
export function prepareImage(folder: string): Image {
  mkdirSync(folder, { recursive: true })
  const release = fetchKernel(folder)
  const initialFiles = join(folder, 'initrd.gz')
  const stamp = join(folder, 'initrd.source')
  const source = `${release}\n${modules}\n${readFileSync(initSource(), 'utf8')}`
  if (!existsSync(initialFiles) || !existsSync(stamp) || readFileSync(stamp, 'utf8') !== source) {
    makeInitialFiles(folder, release, initialFiles)
    writeFileSync(stamp, source)
  }
  return { kernel: join(folder, `kernel/boot/vmlinuz-${release}`), initialFiles, release }
}
