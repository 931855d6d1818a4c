/** Questions about the device that the code depends on, each asked by a small program. */
import type { Report } from '../report.js'
import { probeControlCalls } from './control-calls.js'
import { probeDeregistration } from './deregistration.js'
import { probeErrorState } from './error-state.js'
import { probeFence } from './fence.js'
import { probeLimits } from './limits.js'
import { probePunched } from './punched.js'
import { probeReads } from './reads.js'
import { probeRefusals } from './refusals.js'
import { probeRemoval } from './removal.js'
import { probeRetries } from './retries.js'

/** Removal comes last: the device that is added again is a new one. */
const probes: Readonly<Record<string, () => Record<string, unknown> | Promise<Record<string, unknown>>>> = {
  limits: probeLimits,
  errorState: probeErrorState,
  reads: probeReads,
  retries: probeRetries,
  refusals: probeRefusals,
  fence: probeFence,
  deregistration: probeDeregistration,
  punched: probePunched,
  controlCalls: probeControlCalls,
  removal: probeRemoval,
}

export async function runProbes(): Promise<Pick<Report, 'probes'>> {
  const answers: Record<string, unknown> = {}
  for (const [name, probe] of Object.entries(probes)) {
    answers[name] = await answerOf(probe)
    console.log(`${name}: ${JSON.stringify(answers[name])}`)
  }
  return { probes: answers }
}

async function answerOf(probe: () => Record<string, unknown> | Promise<Record<string, unknown>>): Promise<unknown> {
  try {
    return await probe()
  } catch (error) {
    return { failed: error instanceof Error ? error.message : String(error) }
  }
}
