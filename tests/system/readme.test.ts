import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { runCli, startBroker } from '../support/cli.js'
import { startProcess, type TestProcess } from '../support/processes.js'
import { type Scope, temporaryDirectory } from '../support/temporary-directory.js'

const readme = readFileSync(new URL('../../README.md', import.meta.url), 'utf8')
const loader = new URL('../../broker/typescript.js', import.meta.url).href
const clientPath = fileURLToPath(new URL('../../client/index.ts', import.meta.url))

/** The program of the README, word for word but for where it finds the client: the sources, not what may be built of them. */
function greet(scope: Scope): (runtimeDirectory: string, ...roles: string[]) => TestProcess {
  const [, program] = /```js\n(\/\/ greet\.mjs\n[\s\S]*?)```/.exec(readme) ?? []
  const path = join(temporaryDirectory(scope), 'greet.mjs')
  writeFileSync(path, (program ?? '').replace("'shared-verbs'", JSON.stringify(clientPath)))
  return (runtimeDirectory, ...roles) =>
    startProcess(scope, process.execPath, [`--import=${loader}`, path, ...roles], {
      env: { SHARED_VERBS_DIR: runtimeDirectory },
    })
}

test.serial('the program of the README greets on one node', async (t) => {
  const { runtimeDirectory } = await startBroker(t, '--node', 'alpha')
  const run = greet(t)
  const receiver = run(runtimeDirectory, 'receive')
  await receiver.printed(/^listening on alpha$/m)
  const sender = run(runtimeDirectory, 'send', 'alpha')
  const [sent, received] = [await sender.ended(), await receiver.ended()]
  t.like(sent, { code: 0, stdout: 'sent: success\n' }, sent.stderr)
  t.is(received.code, 0, received.stderr)
  t.regex(received.stdout, /^success: hello through a shared queue pair$/m)
})

test.serial('the program of the README greets from node to node', async (t) => {
  const directory = temporaryDirectory(t)
  const keyFile = join(directory, 'cluster.key')
  writeFileSync(keyFile, 'a secret of this test', { mode: 0o600 })
  const alpha = await startBroker(t, '--node', 'alpha', '--cluster-key-file', keyFile)
  const port = alpha.started.linkAddress
  const beta = await startBroker(t, '--node', 'beta', '--cluster-key-file', keyFile, '--peer', `alpha=${port}`)
  const run = greet(t)
  const receiver = run(alpha.runtimeDirectory, 'receive')
  await receiver.printed(/^listening on alpha$/m)
  const sent = await run(beta.runtimeDirectory, 'send', 'alpha').ended()
  t.like(sent, { code: 0, stdout: 'sent: success\n' }, sent.stderr)
  t.regex((await receiver.ended()).stdout, /^success: hello through a shared queue pair$/m)
  const { stdout } = await runCli(t, ['inspect', 'counters', '--json', '--runtime-dir', beta.runtimeDirectory])
  t.is((JSON.parse(stdout) as { node: string }).node, 'beta')
})

test.serial('exit statuses are those of the command', async (t) => {
  const { stdout } = await runCli(t, ['--help'])
  const printed = [...stdout.matchAll(/^ {2}(\d) {2}(.+)$/gm)].map(([, code, text]) => `| ${code} | ${text} |`)
  t.is(printed.length, 7)
  for (const row of printed) t.true(readme.includes(row), row)
})
