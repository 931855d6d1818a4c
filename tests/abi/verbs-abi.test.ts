/** Offsets and numbers of verbs-abi.ts against a C program compiled with the real header. */
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { ibvConstants, ibvStructures } from '../../broker/provider/verbs-abi.js'

/** The only fields that are not named as in the header: pointers in the table of operations. */
const fieldOf = (name: string): string => name.replace(/^ops_/, 'ops.')

function expectations(): [expression: string, expected: number][] {
  const structures = Object.entries(ibvStructures).flatMap(([structure, { byteLength, ...fields }]) => [
    [`sizeof(struct ${structure})`, byteLength] as [string, number],
    ...Object.entries(fields).map(
      ([field, offset]) => [`offsetof(struct ${structure}, ${fieldOf(field)})`, offset] as [string, number],
    ),
  ])
  return [...structures, ...Object.entries(ibvConstants)]
}

function reasonToSkip(): string | null {
  if (process.arch !== 'x64') return `the offsets are those of x86-64, this is ${process.arch}`
  if (spawnSync('gcc', ['--version']).status !== 0) return 'there is no gcc'
  if (!existsSync('/usr/include/infiniband/verbs.h')) return 'libibverbs-dev is not installed'
  return null
}

const reason = reasonToSkip()
const run = reason === null ? test : test.skip

run(`structures of libibverbs lie as its header says${reason === null ? '' : ` (skipped: ${reason})`}`, (t) => {
  const expected = expectations()
  const lines = expected.map(([expression]) => `  printf("%s %lld\\n", "${expression}", (long long)(${expression}));`)
  const source = `#include <infiniband/verbs.h>\n#include <stddef.h>\n#include <stdio.h>\nint main(void) {\n${lines.join('\n')}\n}\n`
  const folder = mkdtempSync(join(tmpdir(), 'verbs-abi-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  writeFileSync(join(folder, 'offsets.c'), source)
  execFileSync('gcc', ['-o', join(folder, 'offsets'), join(folder, 'offsets.c')])
  const found = execFileSync(join(folder, 'offsets'), { encoding: 'utf8' }).trim().split('\n')
  t.deepEqual(
    found,
    expected.map(([expression, value]) => `${expression} ${value}`),
  )
})
