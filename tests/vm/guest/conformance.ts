/** The provider cases, each with devices of its own, on Soft-RoCE. */
import { openDevice } from '../../../broker/provider/open.js'
import { clock } from '../../../shm/libc.js'
import { type ProviderCase, providerCases } from '../../conformance/provider/cases.js'
import type { DeviceFactory } from '../../conformance/provider/rig.js'
import type { Conformance } from '../report.js'
import type { Wishes } from '../wishes.js'
import { assertions } from './assertions.js'

export const verbsFactory: DeviceFactory = {
  provider: 'verbs',
  clockMs: clock.nowMs,
  open: () => {
    const { device, failure } = openDevice({ provider: 'verbs', host: '127.0.0.1', port: 0 })
    if (failure !== null) throw new Error(failure.message)
    return device
  },
}

/** Why a case that only the soft provider must pass says nothing about a device. */
const reasons: Readonly<Record<number, string>> = {
  87: 'devices check packet sequences of arriving packets only, and acknowledge duplicates',
  105: 'nothing is posted in the error state: kernels differ in what becomes of it',
  123: 'Soft-RoCE takes more reads than it was told',
  127: 'its message is longer than Soft-RoCE takes, and the device keeps its own timers',
  140: 'the device keeps its own timers',
}

function reasonToSkip({ only, number }: ProviderCase): string | null {
  return only === undefined ? null : (reasons[number] ?? `only for the ${only} provider`)
}

export async function runConformance(wishes: Wishes): Promise<{ conformance: Conformance }> {
  const wanted = new Set(
    wishes.cases
      .split(',')
      .filter((text) => text !== '')
      .map(Number),
  )
  const result = { passed: 0, failed: 0, skipped: [] as string[], failures: [] as string[] }
  for (const providerCase of providerCases) {
    const { number, name } = providerCase
    if (wanted.size > 0 && !wanted.has(number)) continue
    const reason = reasonToSkip(providerCase)
    if (reason !== null) {
      result.skipped.push(`${number} ${name}: ${reason}`)
      continue
    }
    const startMs = clock.nowMs()
    const failure = await failureOf(providerCase)
    const seconds = ((clock.nowMs() - startMs) / 1000).toFixed(1)
    console.log(`${failure === null ? 'ok    ' : 'FAILED'} ${number} ${name} (${seconds} s)`)
    if (failure === null) result.passed++
    else {
      result.failed++
      result.failures.push(`${number} ${name}: ${failure}`)
      console.log(`       ${failure}`)
    }
  }
  return { conformance: result }
}

async function failureOf(providerCase: ProviderCase): Promise<string | null> {
  try {
    await providerCase.run(assertions, verbsFactory)
    return null
  } catch (error) {
    if (!(error instanceof Error)) return String(error)
    const place =
      error.stack
        ?.split('\n')
        .find((line) => line.includes('/cases-'))
        ?.trim() ?? ''
    return `${error.message} ${place.replace(/\(?\S*\/(cases-)/, '($1')}`
  }
}
