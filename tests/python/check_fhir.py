#!/usr/bin/env python3
"""Hold FHIR bundles against FHIR's own definitions and against findings.json.

usage: check_fhir.py RESULTS_DIR

Each folder in RESULTS_DIR is a result; those of a DICOM series have fhir-r4.json and fhir-r5.json. Both must be what fhir.resources takes (R4
as R4B, which is the same for these resources) and R4 what fhirkit finds no error in; references must lead to resources of the bundle, and
invariants hold that these do not check. Every number, answer, code and presence must be that of findings.json, every number to the last bit,
and the patient the one that pydicom reads in the report.
Exit 0, or 1 with every reason.
"""
import json
import sys
from decimal import Decimal
from pathlib import Path

import fhirkit
import pydicom
from fhir.resources.bundle import Bundle as BundleR5
from fhir.resources.R4B.bundle import Bundle as BundleR4B

results = Path(sys.argv[1])
problems = []
counts = {'bundles': 0, 'resources': 0, 'numbers': 0, 'answers': 0}

SYSTEMS = {'SCT': 'http://snomed.info/sct', 'DCM': 'http://dicom.nema.org/resources/ontology/DCM', 'UCUM': 'http://unitsofmeasure.org'}
# Where a reference of an element may lead.
TARGETS = {
    'subject': {'Patient'}, 'patient': {'Patient'}, 'partOf': {'ImagingStudy'}, 'derivedFrom': {'ImagingStudy', 'ImagingSelection'},
    'device': {'Device'}, 'parent': {'Device'}, 'who': {'Device'}, 'hasMember': {'Observation'}, 'result': {'Observation'},
    'imagingStudy': {'ImagingStudy'}, 'study': {'ImagingStudy'}, 'target': {'DiagnosticReport'}, 'what': {'ImagingStudy'},
    'bodyStructure': {'BodyStructure'}, 'valueReference': {'BodyStructure'},
}
# Codes of required bindings, which neither validator holds: those that are written.
REQUIRED = {
    'status': {'preliminary', 'available'}, 'gender': {'male', 'female', 'other', 'unknown'}, 'method': {'POST'}, 'role': {'source', 'revision'},
}
DEVICE_NAME_TYPES = {'R4': {'model-name'}, 'R5': {'registered-name'}}


def walk(value, key=None):
    yield key, value
    if isinstance(value, dict):
        for k, v in value.items():
            yield from walk(v, k)
    elif isinstance(value, list):
        for v in value:
            yield from walk(v, key)


def check_bundle(where, bundle, release):
    counts['bundles'] += 1
    try:
        (BundleR5 if release == 'R5' else BundleR4B).model_validate(bundle)
    except ValueError as error:
        problems.append(f'{where}: fhir.resources: {error}')
    if release == 'R4':
        problems.extend(f'{where}: fhirkit: {issue}' for issue in fhirkit.validate(bundle) if str(issue).startswith('error'))
    kinds = {}
    for entry in bundle['entry']:
        counts['resources'] += 1
        resource, request = entry['resource'], entry['request']
        need = lambda holds, text: None if holds else problems.append(f"{where}: {resource['resourceType']}: {text}")
        need(entry['fullUrl'] not in kinds, 'bdl-7: a fullUrl twice')
        kinds[entry['fullUrl']] = resource['resourceType']
        need(request['url'] == resource['resourceType'] and request['method'] == 'POST', 'bdl-3: another request')
        if 'identifier' in resource:
            first = resource['identifier'][0]
            need(request.get('ifNoneExist') == f"identifier={first['system']}|{first['value']}", f"ifNoneExist is {request.get('ifNoneExist')}")
        if resource['resourceType'] == 'Observation':
            values = [k for k in resource if k.startswith('value')]
            need(len(values) + ('dataAbsentReason' in resource) == 1, 'obs-6: value and dataAbsentReason')
            codes = {(c.get('system'), c['code']) for c in resource['code']['coding']}
            for component in resource.get('component', []):
                need(not codes & {(c.get('system'), c['code']) for c in component['code']['coding']}, 'obs-7: a component with the same code')
            need(not {'bodySite', 'bodyStructure'} <= set(resource), 'obs-8: bodySite and bodyStructure')
            need(resource['status'] == 'preliminary' and resource['meta']['security'][0]['code'] == 'AIAST', 'not a preliminary result of an AI')
    for key, value in walk(bundle):
        if value in (None, '', [], {}):
            problems.append(f'{where}: {key} is empty')
        if isinstance(value, dict) and 'reference' in value:
            kind = kinds.get(value['reference'])
            if kind is None or kind not in TARGETS.get(key, set()):
                problems.append(f'{where}: {key} refers to {kind}')
        if isinstance(value, str) and key in REQUIRED and value not in REQUIRED[key]:
            problems.append(f'{where}: {key} is {value}')
        if key in ('deviceName', 'name') and isinstance(value, dict) and 'type' in value and value['type'] not in DEVICE_NAME_TYPES[release]:
            problems.append(f'{where}: a device name of type {value["type"]}')
        if key == 'system' and not (isinstance(value, str) and ':' in value):
            problems.append(f'{where}: system {value} is no URI')


def same_code(concept, code):
    coding = concept['coding'][0]
    system = SYSTEMS.get(code['scheme'])
    named = coding['system'] == system if system else coding['system'].startswith('urn:oid:')
    return named and coding['code'] == code['value'] and coding['display'] == code['meaning']


def check_findings(where, bundle, document, folder, release):
    of_url = {e['fullUrl']: e['resource'] for e in bundle['entry']}

    def need(holds, text):
        if not holds:
            problems.append(f'{where}: {text}')

    def of_kind(kind):
        return [r for r in of_url.values() if r['resourceType'] == kind]

    report = of_kind('DiagnosticReport')[0]
    groups = [of_url[r['reference']] for r in report['result']]
    need(len(groups) == len(document['findings']), 'another number of findings')
    need(report['status'] == 'preliminary' and 'not verified' in report['conclusion'], 'the report does not say that it is preliminary')
    seg = next((o for o in document['results'] if o['file'] == 'seg.dcm'), None)
    for group, finding in zip(groups, document['findings']):
        name = finding['name']
        need(group['identifier'][1]['value'] == 'urn:oid:' + finding['tracking_uid'], f'{name}: another tracking UID')
        need(same_code(group['code'], finding['finding_type']), f'{name}: code')
        need(same_code(group['category'][2], finding['category']), f'{name}: category')
        need(group['valueCodeableConcept']['coding'][0]['code'] == ('52101004' if finding['present'] else '272519000'), f'{name}: presence')
        certainty_code = '111012' if finding['present'] else 'PRESENCE-PROB'
        certainty = [float(c['valueQuantity']['value']) for c in group.get('component', []) if c['code']['coding'][0]['code'] == certainty_code]
        need(certainty == [c for c in [finding['certainty_percent']] if c is not None], f'{name}: certainty {certainty}')
        structure = None
        if release == 'R5' and 'bodyStructure' in group:
            included = of_url[group['bodyStructure']['reference']]['includedStructure'][0]
            structure = included['structure'], included['laterality']
        elif release == 'R4' and 'extension' in group.get('bodySite', {}):
            body = of_url[group['bodySite']['extension'][0]['valueReference']['reference']]
            structure = body['location'], body['locationQualifier'][0]
        need((structure is not None) == (finding['laterality'] is not None), f'{name}: a side or none')
        site = finding['site'] or finding['finding_type']
        if structure:
            need(same_code(structure[0], site) and same_code(structure[1], finding['laterality']), f'{name}: site and side')
        elif finding['site']:
            need(same_code(group['bodySite'], finding['site']), f'{name}: site')
        selected = [of_url[r['reference']] for r in group['derivedFrom'] if of_url[r['reference']]['resourceType'] == 'ImagingSelection']
        need(bool(selected) == bool(release == 'R5' and seg and finding['segment_number']), f'{name}: a selection or none')
        if selected:
            need(selected[0]['instance'][0]['uid'] == seg['sop_instance_uid'] and selected[0]['instance'][0]['subset'] == [str(finding['segment_number'])],
                 f'{name}: another segment')

        members = [of_url[r['reference']] for r in group.get('hasMember', [])]
        counted = finding['measurements'] if finding['present'] or finding['segment'] is None else []
        need(len(members) == len(counted) + len(finding['evaluations']), f'{name}: {len(members)} members')
        for member, want in zip(members, counted):
            counts['numbers'] += 1
            need(same_code(member['code'], want['concept']), f'{name}: concept')
            if want['value'] is None:
                need('dataAbsentReason' in member, f'{name}: a number where none is')
            else:
                quantity = member['valueQuantity']
                need(float(quantity['value']) == want['value'], f"{name}: {quantity['value']} is not {want['value']}")
                need(quantity['code'] == want['unit']['value'] and quantity['system'] == SYSTEMS['UCUM'], f'{name}: unit')
            need(('method' in member) == (want['method'] is not None), f'{name}: method')
            if want['method']:
                need(same_code(member['method'], want['method']), f'{name}: method')
            derivation = [c['valueCodeableConcept'] for c in member.get('component', [])]
            need(len(derivation) == (want['derivation'] is not None), f'{name}: derivation')
            need(all(same_code(d, want['derivation']) for d in derivation), f'{name}: derivation')
        for member, want in zip(members[len(counted):], finding['evaluations']):
            counts['answers'] += 1
            need(same_code(member['code'], want['question']) and same_code(member['valueCodeableConcept'], want['answer']), f'{name}: answer')

    study = of_kind('ImagingStudy')[0]
    need(study['identifier'][0]['value'] == 'urn:oid:' + document['study_instance_uid'], 'another study')
    listed = {(s['uid'], i['uid']) for s in study['series'] for i in s['instance']}
    wanted = {(document['series_instance_uid'], i['sop_instance_uid']) for i in document['source_instances']}
    wanted |= {(o['series_instance_uid'], o['sop_instance_uid']) for o in document['results']}
    need(listed == wanted, 'other instances in the study')
    model = next(d for d in of_kind('Device') if 'parent' in d)
    need(model['version'][0]['value'] == document['package_version'], 'another version of the model')
    revised = [e['what']['identifier']['value'] for e in of_kind('Provenance')[0]['entity'] if e['role'] == 'revision']
    need(revised == ['urn:oid:' + p['sop_instance_uid'] for p in document['predecessors']], 'other predecessors')

    source = next((p for p in [folder / 'sr-study.dcm', folder / 'sr.dcm'] if p.exists()), None)
    if source:
        ds = pydicom.dcmread(source)
        ds.decode()
        patient = of_kind('Patient')[0]
        need(patient['identifier'][-1]['value'] == ds.PatientID, 'another patient ID')
        need(patient.get('birthDate', '').replace('-', '') == ds.PatientBirthDate, 'another birth date')
        groups = [g for g in (ds.PatientName.alphabetic, ds.PatientName.ideographic, ds.PatientName.phonetic) if g]
        need(len(groups) == len(patient['name']), 'another number of names')
        for got, want in zip(patient['name'], groups):
            parts = want.split('^') + [''] * 5
            need(got.get('family', '') == parts[0] and got.get('given', []) == [p for p in parts[1:3] if p] and got.get('prefix', []) == [p for p in parts[3:4] if p],
                 'another name')
    return of_url


for folder in sorted(p for p in results.iterdir() if (p / 'findings.json').is_file()):
    document = json.loads((folder / 'findings.json').read_text())
    if 'source_file' in document:
        if list(folder.glob('fhir*')):
            problems.append(f'{folder.name}: a bundle without patient')
        continue
    urls = []
    for release, file in (('R4', 'fhir-r4.json'), ('R5', 'fhir-r5.json')):
        where = f'{folder.name}/{file}'
        text = (folder / file).read_text(encoding='utf-8')
        check_bundle(where, json.loads(text, parse_float=Decimal), release)
        urls.append(set(check_findings(where, json.loads(text), document, folder, release)))
    if not urls[0] <= urls[1]:
        problems.append(f'{folder.name}: R4 has resources that R5 has not')

print('\n'.join(problems[:60]) or ', '.join(f'{value} {name}' for name, value in counts.items()) + ' are right')
sys.exit(1 if problems else 0)
