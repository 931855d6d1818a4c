import { cpSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { repositoryDirectory } from '../support/cli.js'
import { runProcess } from '../support/processes.js'
import { type Scope, temporaryDirectory } from '../support/temporary-directory.js'

/** What git would check out and a user would have after `npm ci`, so that packing disturbs nobody who uses what is built here. */
function freshCheckout(scope: Scope): string {
  const directory = join(temporaryDirectory(scope), 'checkout')
  mkdirSync(directory)
  for (const name of readdirSync(repositoryDirectory)) {
    if (['node_modules', '.build', '.coverage', '.git', '.cache'].includes(name)) continue
    cpSync(join(repositoryDirectory, name), join(directory, name), { recursive: true })
  }
  symlinkSync(join(repositoryDirectory, 'node_modules'), join(directory, 'node_modules'))
  return directory
}

/** Sources that were compiled for the tests are not the checkout's. */
const env = { SHARED_VERBS_COMPILED: undefined }

async function succeed(
  t: Scope & { is(actual: unknown, expected: unknown, message?: string): unknown },
  cwd: string,
  ...words: string[]
): Promise<string> {
  const [command = '', ...commandArguments] = words
  const { code, stdout, stderr } = await runProcess(t, command, commandArguments, { cwd, env, timeoutMs: 150_000 })
  t.is(code, 0, `${words.join(' ')}\n${stdout}\n${stderr}`)
  return stdout
}

const program = `
import { attach, type Completion, SharedVerbsError } from 'shared-verbs'

export async function first(runtimeDir: string): Promise<Completion | undefined> {
  const session = await attach({ runtimeDir, job: 'job', name: 'typed' })
  const region = await session.registerMemory(4096, { remoteRead: true })
  const cq = await session.createCompletionQueue({ capacity: 16 })
  const qp = await session.createQueuePair({ type: 'connected', sendCq: cq, receiveCq: cq })
  const accepted: number = qp.postSend({ id: 1, opcode: 'send', local: [{ region, offset: 0, length: 8 }] })
  return accepted === 0 ? undefined : cq.poll(1)[0]
}

first('/nonexistent').catch((error: unknown) => {
  console.log(error instanceof SharedVerbsError ? error.code : error)
})
`

test.serial('a checkout runs the command with nothing built', async (t) => {
  t.timeout(170_000)
  const checkout = freshCheckout(t)
  t.regex(await succeed(t, checkout, process.execPath, 'broker/bin.js', '--help'), /Usage: broker/)
})

test.serial('the package installs, has types, and runs its command', async (t) => {
  t.timeout(170_000)
  const checkout = freshCheckout(t)
  const project = join(temporaryDirectory(t), 'project')
  mkdirSync(project)
  const packed = JSON.parse(await succeed(t, checkout, 'npm', 'pack', '--json', '--silent')) as [
    { filename: string; files: { path: string }[] },
  ]
  const tarball = join(checkout, packed[0].filename)
  t.deepEqual(
    packed[0].files.map(({ path }) => path).filter((path) => /(^|\/)tests?\/|(?<!\.d)\.ts$/.test(path)),
    [],
  )
  // What works on messages is one file: V8 looks the values of other modules up each time.
  for (const path of ['.build/broker/engine/worker.js', '.build/client/index.js']) {
    const text = readFileSync(join(checkout, path), 'utf8')
    t.deepEqual(text.match(/^(import|export) .* from '\.[^']*'/gm) ?? [], [], path)
  }
  writeFileSync(join(project, 'package.json'), JSON.stringify({ name: 'project', type: 'module', private: true }))
  await succeed(t, project, 'npm', 'install', '--no-audit', '--no-fund', '--prefer-offline', tarball)
  t.regex(await succeed(t, project, 'npx', '--no-install', 'broker', '--help'), /Usage: broker/)

  writeFileSync(join(project, 'program.ts'), program)
  const settings = ['--module', 'nodenext', '--target', 'es2022', '--strict', '--types', 'node', '--outDir', 'out']
  const typeRoots = join(repositoryDirectory, 'node_modules', '@types')
  await succeed(
    t,
    project,
    process.execPath,
    join(repositoryDirectory, 'node_modules/typescript/bin/tsc'),
    ...settings,
    '--typeRoots',
    typeRoots,
    'program.ts',
  )
  t.is((await succeed(t, project, process.execPath, 'out/program.js')).trim(), 'broker-not-running')
})
