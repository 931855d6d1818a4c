/**
 * Where processor time goes: runs `broker bench` under V8's profiler and prints the functions of each thread with the most self time. The
 * engine is a thread of its own; a client's whole work is its main thread.
 *
 *   npm run --silent build && node --import=./broker/typescript.js tests/bench/profile.ts [--top 12] -- --only rate --duration 3000
 */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { toolOptions } from '../support/tool-options.js'

interface Profile {
  readonly nodes: readonly {
    readonly id: number
    readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number }
  }[]
  readonly samples: readonly number[]
  readonly timeDeltas: readonly number[]
}

const help = `tests/bench/profile.ts [--top <n>] [-- options of broker bench]

  --top <n>   functions told of each thread (12)`

const { values: options, positionals } = toolOptions(help, {
  options: { top: { type: 'string', default: '12' } },
  allowPositionals: true,
})
/** Asleep, or with the processor given away. */
const WAITS = /^(\(idle\)|\(root\)|epollWait|pollDescriptors|schedulerYield)/
/** Threads that ran for less did nothing that was measured. */
const LEAST_MS = 300

function summarize(name: string, path: string): void {
  const profile = JSON.parse(readFileSync(path, 'utf8')) as Profile
  const places = new Map(profile.nodes.map(({ id, callFrame }) => [id, placeOf(callFrame)]))
  const selfMs = new Map<string, number>()
  let busyMs = 0
  for (const [index, sample] of profile.samples.entries()) {
    const place = places.get(sample)!
    const durationMs = profile.timeDeltas[index]! / 1000
    if (WAITS.test(place)) continue
    selfMs.set(place, (selfMs.get(place) ?? 0) + durationMs)
    busyMs += durationMs
  }
  const role = roleOf(profile)
  if (role === undefined || busyMs < LEAST_MS) return
  console.log(`\n${role} (${name}): ${busyMs.toFixed(0)} ms not waiting`)
  const sorted = [...selfMs].sort((a, b) => b[1] - a[1]).slice(0, Number(options.top))
  for (const [place, durationMs] of sorted) {
    console.log(`  ${((durationMs / busyMs) * 100).toFixed(1).padStart(5)} %  ${place}`)
  }
}

function placeOf({ functionName, url, lineNumber }: Profile['nodes'][number]['callFrame']): string {
  const file = url.replace(/^.*\/(\.build|node_modules)\//, '')
  return `${functionName || '(top level)'} ${file}${url === '' ? '' : `:${lineNumber + 1}`}`
}

const roles: ReadonlyMap<string, string> = new Map([
  ['worker.js', 'engine'],
  ['bench-ping-pong.js', 'client'],
  ['bench-stream.js', 'client'],
  ['bench-one-sided.js', 'client'],
])

/** By the files whose functions were seen. */
function roleOf({ nodes }: Profile): string | undefined {
  const files = nodes.map(({ callFrame }) => callFrame.url.replace(/^.*\//, ''))
  return files.map((file) => roles.get(file)).find((role) => role !== undefined)
}

const main = fileURLToPath(new URL('../../.build/broker/main.js', import.meta.url))
const directory = mkdtempSync(join(tmpdir(), 'shared-verbs-profile-'))
try {
  const flags = ['--cpu-prof', `--cpu-prof-dir=${directory}`, '--cpu-prof-interval=200']
  const { status } = spawnSync(process.execPath, [...flags, main, 'bench', ...positionals], { stdio: 'inherit' })
  if (status !== 0) throw new Error(`broker bench ended with ${status}`)
  for (const name of readdirSync(directory).sort()) summarize(name, join(directory, name))
} finally {
  rmSync(directory, { recursive: true, force: true })
}
