/** Exit statuses of every command; the README and each `--help` print this table. */
import type { ErrorCode } from '../../protocol/error-codes.js'
import { errorCodes } from '../../protocol/error-codes.js'

export const exitCode = {
  success: 0,
  failure: 1,
  usage: 2,
  notRunning: 3,
  alreadyRunning: 4,
  hung: 5,
  timeout: 6,
} as const

export const exitCodeTexts: Readonly<Record<keyof typeof exitCode, string>> = {
  success: 'done',
  failure: 'failed; the error on stderr says why',
  usage: 'unknown option or command, missing or wrong value',
  notRunning: 'no broker runs in the runtime directory',
  alreadyRunning: 'another broker runs in the runtime directory',
  hung: 'the broker lives but does not work',
  timeout: 'not done in the time allowed',
}

export function exitCodeOf(code: ErrorCode): number {
  if (code === 'broker-not-running') return exitCode.notRunning
  if (code === 'broker-already-running') return exitCode.alreadyRunning
  if (code === 'timeout') return exitCode.timeout
  return errorCodes[code] === 'usage' ? exitCode.usage : exitCode.failure
}

/** For the end of a command's help: only the statuses it uses. */
export function exitCodeHelp(...names: (keyof typeof exitCode)[]): string {
  return ['Exit status:', ...names.map((name) => `  ${exitCode[name]}  ${exitCodeTexts[name]}`)].join('\n')
}
